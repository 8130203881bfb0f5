"""When DAGs run: from a spec to a timetable.

Keyed DAGs use one timetable for four ways of starting: a cron tick per partition, a keyed asset event, a key given by
hand, and a backfill from the UI. Airflow has each of them, but no stock timetable has all: asset-driven DAGs cannot be
backfilled, and ``AssetOrTimeSchedule`` loses the key.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any
from zoneinfo import ZoneInfo

from airflow.exceptions import InvalidPartitionKeyError
from airflow.partition_mappers.base import PartitionMapper
from airflow.partition_mappers.temporal import (
    StartOfDayMapper,
    StartOfHourMapper,
    StartOfMonthMapper,
    StartOfWeekMapper,
    StartOfYearMapper,
)
from airflow.sdk import CronTriggerTimetable
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.simple import PartitionedAssetTimetable
from airflow.timetables.trigger import CronPartitionTimetable
from airflow.utils.types import DagRunType

from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.grains import GRAINS
from perennial.specs.partitions import first_key, last_key, period

#: How keys of a grain are written (``strftime``; ``strptime`` cannot read the weeks, so :class:`WeekMapper` does).
KEY_FORMATS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "year": "%Y"}


class WeekMapper(StartOfWeekMapper):
    """Keys that are ISO weeks, such as ``2013-W01``."""

    def to_downstream(self, key: str) -> str:
        """The key itself, when it names a week."""
        return GRAINS["week"].format(GRAINS["week"].parse(key))

    def decode_downstream(self, downstream_key: str) -> dt.datetime:
        """The week's Monday, as local wall clock."""
        return GRAINS["week"].begin(GRAINS["week"].parse(downstream_key))


_MAPPERS = {
    "hour": StartOfHourMapper,
    "day": StartOfDayMapper,
    "week": WeekMapper,
    "month": StartOfMonthMapper,
    "year": StartOfYearMapper,
}


def _mapper(every: str, timezone: str) -> PartitionMapper:
    """Feeds and what they drive share their grain: an event's key is the run's."""
    return _MAPPERS[every](timezone=timezone, input_format=KEY_FORMATS[every], output_format=KEY_FORMATS[every])


class KeyedTimetable(PartitionedAssetTimetable):
    """Cron, keyed events, manual keys and backfills, all with a partition key.

    :param assets: keyed events of these start a run for their key.
    :param every: the grain of the partitions. The cron tick that ends a period stands for that period. (Ticks of days
        and longer come at midnight: at other times a backfill would lose its last day.)
    :param ticks: whether cron starts runs by itself. Without, it still says which partitions a backfill has.
    """

    can_be_scheduled = True
    periodic = True
    partitioned = True

    def __init__(
        self,
        *,
        assets: Any,
        every: str,
        timezone: str,
        ticks: bool = False,
        **mapping: Any,
    ) -> None:
        mapping.setdefault("default_partition_mapper", _mapper(every, timezone))
        super().__init__(assets=assets, **mapping)
        self._own = {"every": every, "timezone": timezone, "ticks": ticks}
        self._ticks, self._grain = ticks, GRAINS[every]
        self._cron = CronPartitionTimetable(
            self._grain.cron, timezone=timezone, key_format=KEY_FORMATS[every], run_offset=-1
        )
        self.description = (
            "Each partition, when its period has ended, " if ticks else ""
        ) + "on events, by key, or by backfill"

    @property
    def summary(self) -> str:
        """What the UI shows as the schedule."""
        return f"{self._grain.cron} and events" if self._ticks else "Partition events"

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next cron tick, if there are any. The tick that begins the feed ends a partition before it: not that."""
        if not self._ticks:
            return None
        found = self._cron.next_dagrun_info_v2(last_dagrun_info=last_dagrun_info, restriction=restriction)
        first = restriction.earliest
        if found and first and found.partition_date and found.partition_date < first:
            return self._cron.next_dagrun_info_v2(last_dagrun_info=found, restriction=restriction)
        return found

    def iter_partition_dagrun_infos(self, *, earliest: dt.datetime, latest: dt.datetime) -> Iterable[DagRunInfo]:
        """Partitions of a backfill."""
        return self._cron.iter_partition_dagrun_infos(earliest=earliest, latest=latest)

    def localize_partition_datetime(self, value: Any) -> Any:
        """A backfill's bound as local wall clock."""
        return self._cron.localize_partition_datetime(value)

    def _decode_partition_date(self, partition_key: str) -> dt.datetime | None:
        try:
            self._grain.parse(partition_key)  # stricter than Airflow, which takes 2013-1-5 as well
        except ValueError:
            raise InvalidPartitionKeyError(
                f"Partition key {partition_key!r} is not {self._grain.one}: write it like {self._grain.example}"
            ) from None
        return self.default_partition_mapper.to_partition_date(partition_key)

    def generate_run_id(self, *, run_type: DagRunType, **given: Any) -> str:
        """Run ids as Airflow makes them for each way of starting."""
        if run_type == DagRunType.ASSET_TRIGGERED:
            return super().generate_run_id(run_type=run_type, **given)
        return self._cron.generate_run_id(run_type=run_type, **given)

    def infer_manual_data_interval(self, *, run_after: Any) -> DataInterval:
        """Keyed runs have no data interval."""
        return DataInterval.exact(run_after)

    def serialize(self) -> dict[str, Any]:
        """For the metadata database."""
        return {**super().serialize(), **self._own}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> KeyedTimetable:
        """From the metadata database."""
        from airflow.serialization.decoders import decode_partition_mapper
        from airflow.serialization.serialized_objects import decode_asset_like

        return cls(
            assets=decode_asset_like(data["asset_condition"]),
            default_partition_mapper=decode_partition_mapper(data["default_partition_mapper"]),
            partition_mapper_config={
                decode_asset_like(asset): decode_partition_mapper(mapper)
                for asset, mapper in data["partition_mapper_config"]
            },
            every=data.get("every", "day"),  # written before there were other grains
            timezone=data["timezone"],
            ticks=data["ticks"],
        )


def keyed(feed: FeedSpec, assets: Any, *, ticks: bool = False) -> KeyedTimetable:
    """The timetable of a DAG that runs per partition of ``feed``."""
    return KeyedTimetable(assets=assets, every=feed.every, timezone=feed.timezone, ticks=ticks)


def cron(spec: ModelSpec, feed: FeedSpec) -> CronTriggerTimetable | None:
    """The training schedule, in the entity feed's zone; ``None`` when only forms start it."""
    if spec.training.schedule is None:
        return None
    return CronTriggerTimetable(spec.training.schedule, timezone=feed.timezone)


def bounds(feed: FeedSpec) -> dict[str, dt.datetime]:
    """``start_date`` and, where a feed ends, ``end_date`` for its DAGs: nothing is scheduled outside."""
    zone, last = ZoneInfo(feed.timezone), last_key(feed)
    found = {"start_date": period(feed, first_key(feed))[0].astimezone(zone)}
    if last is not None:
        found["end_date"] = period(feed, last)[1].astimezone(zone)
    return found
