"""Gates: named rules that say ``pass``, ``fail`` or ``hold`` with their figures. One file per gate.

``blocks`` lies under all of them (jackknife, variance inflation); ``metrics`` knows which way is better; ``verdict``
says what a result is and how several results decide together.
"""
