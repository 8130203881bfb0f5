-- One row per flight of the day being built ($partition). Every table shows only what had landed by the end of that
-- day: flights and weather of the day itself, arrivals of the days before.
WITH ended AS (
    SELECT f.carrier, f.origin, f.dest, a.late
    FROM arrivals a
    JOIN flights f USING (flight_id)
    WHERE a.late IS NOT NULL
),
by_carrier AS (SELECT carrier, avg(late) AS late_rate FROM ended GROUP BY carrier HAVING count(*) >= 20),
by_route AS (SELECT origin, dest, avg(late) AS late_rate FROM ended GROUP BY origin, dest HAVING count(*) >= 20),
by_origin AS (SELECT origin, avg(late) AS late_rate FROM ended GROUP BY origin)
SELECT
    f.flight_id,
    f.sched_dep,
    f.carrier,
    f.origin,
    f.dest,
    f.distance,
    f.hour,
    f.minute,
    f.sched_arr_hhmm // 100 AS arrival_hour,
    isodow(f.partition) AS weekday,
    w.temp,
    w.dewp,
    w.humid,
    w.wind_dir,
    w.wind_speed,
    w.precip,
    w.pressure,
    w.visib,
    c.late_rate AS carrier_late_rate,
    r.late_rate AS route_late_rate,
    o.late_rate AS origin_late_rate
FROM flights f
LEFT JOIN weather w ON w.origin = f.origin AND w.time_hour = date_trunc('hour', f.sched_dep)
LEFT JOIN by_carrier c ON c.carrier = f.carrier
LEFT JOIN by_route r ON r.origin = f.origin AND r.dest = f.dest
LEFT JOIN by_origin o ON o.origin = f.origin
WHERE f.partition = $partition
