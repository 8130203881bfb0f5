import os,sys
os.environ["OMP_NUM_THREADS"]="1"
sys.path[:0]=["tests","tests/integration"]
from test_core_census import *
from perennial.training import audit as A
def test_z(home, registry):
    life=Life("employment"); ingest(life, YEARS)
    for hold in ("2017",):
        d=life.train("t"+hold, known_at_instant(life.entity, hold))
        print(hold, [ (r.gate,r.verdict,r.reason) for r in d.evaluation.results], gate(d,"floor").figures, gate(d,"baseline").figures)
        for spec in (life.spec, audited(life,.1), audited(life,.2,{"column":"DIS","groups":{"yes":["1"],"no":["2"]}},{"column":"AGEP","bins":[25,45,65]})):
            e=judged_by(life,d,spec); print(e.verdict,e.reason)
            for l in e.audits["fairness"]["table"]:
                print("   ",l["column"],l["group"],l["measure"],l["n"],round(l["rate"],3),round(l["rate_rest"],3),round(l["difference"],3),round(l["low"],3),round(l["high"],3),l["verdict"])
