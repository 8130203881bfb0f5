-- One row per flight of the day being built. Time in the air follows from the route, the wind and the season.
WITH flown AS (
    SELECT f.origin, f.dest, f.carrier, a.air_time
    FROM arrivals a
    JOIN flights f USING (flight_id)
    WHERE a.air_time IS NOT NULL
),
by_route AS (
    SELECT origin, dest, median(air_time) AS typical, min(air_time) AS shortest
    FROM flown GROUP BY origin, dest
)
SELECT
    f.flight_id,
    f.sched_dep,
    f.carrier,
    f.origin,
    f.dest,
    f.distance,
    f.hour,
    isodow(f.partition) AS weekday,
    w.temp,
    w.wind_dir,
    w.wind_speed,
    w.pressure,
    r.typical AS route_typical,
    r.shortest AS route_shortest
FROM flights f
LEFT JOIN weather w ON w.origin = f.origin AND w.time_hour = date_trunc('hour', f.sched_dep)
LEFT JOIN by_route r ON r.origin = f.origin AND r.dest = f.dest
WHERE f.partition = $partition
