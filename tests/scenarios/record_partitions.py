#!/usr/bin/env python3
"""Records what Airflow's own partition mappers, windows, wait policies and partition timetables answer.

    python record_partitions.py SEED COUNT OUTPUT.jsonl.zlib

Needs an environment with apache-airflow 3.3.2. Mappers, formats, zones, keys and clocks are drawn at random from the
seed, half of the times near a change of the zone's offset. COUNT is the number of keys and dates. "error" stands for
what Airflow refuses or raises. A line is one of

    ["mapper", form, [[key, downstream keys], ...],
                     [[downstream key, date, keys expected by a rollup, [[received keys, satisfied], ...]], ...]]
    ["cron", form, {"now", "last", "earliest", "latest", "catchup"}, [run_after, partition date, key], [[key, date], ...]]
    ["assets", form, fingerprint, [[key, date], ...]]
"""

import bisect
import datetime as dt
import json
import logging
import os
import random
import sys
import tempfile
import warnings
import zlib
import zoneinfo

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp())
logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
import structlog  # noqa: E402

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
from airflow._shared.timezones.timezone import coerce_datetime  # noqa: E402
from airflow.serialization.decoders import decode_partition_mapper, decode_timetable  # noqa: E402
from airflow.timetables import trigger  # noqa: E402
from airflow.timetables.base import DagRunInfo, TimeRestriction, compute_rollup_fingerprint  # noqa: E402

trigger.log = logging.getLogger(__name__)  # not structlog's, which prints
trigger.log.info = lambda *_, **__: None
UTC = dt.timezone.utc
ZONES = """
UTC UTC Europe/Zurich Europe/London America/New_York America/Sao_Paulo America/St_Johns America/Havana Asia/Kolkata
Asia/Tehran Asia/Tokyo Africa/Casablanca Australia/Lord_Howe Pacific/Apia Pacific/Auckland Antarctica/Troll
""".split()
CRONS = """
0 * * * *|15 * * * *|0 0 * * *|30 2 * * *|0 2 * * *|0 0 * * 1|0 0 1 * *|*/15 * * * *|0 */6 * * *|0 9 * * mon-fri|
0 0 1 */3 *|0 0 31 * *|45 23 * * *|0 1,2,3 * * *|0 12 29 2 *|*/7 * * * *
""".replace("\n", "").split("|")
INPUTS = [
    "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d", "%Y-%m-%dT%H", "%Y%m%d", "%Y%m%d%H%M",
    "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S.%f", "%d.%m.%Y", "%m/%d/%y", "%Y-%j", "%Y-%m", "%Y", "%b %d %Y",
    "%A, %d %B %Y %I:%M %p", "%G-W%V-%u", "%Y-W%W-%w", "%Y U%U %a", "%Y-%m-%d %Z", "%c", "%x %X", "day=%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S Z", "%Y  %m %d", "%y%m%d", "%H:%M", "%Y-%q", "%Y-%m-%d%", "%Y %Y", "%-d.%m.%Y", "100%% %Y (%m)",
    "%Y-%m-%dT%H%z", "%m-%d",
]
OUTPUTS = [
    "%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m", "%Y", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%d.%m.%Y", "%Y-W%W", "%G-W%V",
    "%Y-%m-%d (W%V)", "%Y-Q{quarter}", "Q{quarter}/%Y", "%Y-%m-%d Q{quarter}", "%Y-{name}", "%Y{quarter}", "{a}{b}",
    "%Y %Y", "{1x}", "%Y-%m-%d %Z", "%A %d %B %Y", "%a, %b %e %Y", "%j of %Y", "%-d/%-m/%Y", "%F %T", "%D", "%U|%w|%u",
    "%C %g %y", "%I %p %P", "%k:%M:%l", "%_d %010Y %^a %#B", "%f", "%n%t%%", "%R %r", "%h", "%Q", "%", "%5S", "%Ey %Od",
    "Q{quarter} {{", "%Y}", "%Y %V %U %W %m %d", "%c", "%x %X", "%EY%", "%Y-%m-%d {quarter}", "",
]
GRAINS = {
    "Hour": "%Y-%m-%dT%H", "Day": "%Y-%m-%d", "Week": "%Y-%m-%d (W%V)", "Month": "%Y-%m", "Quarter": "%Y-Q{quarter}",
    "Year": "%Y",
}
WINDOWS = "Hour Day Week Month Quarter Year".split()
# A period's window, and the mapper whose keys begin such periods.
PERIODS = {"Hour": "Hour", "Day": "Day", "Week": "Week", "Month": "Month", "Quarter": "Quarter", "Year": "Year"}
WORDS = ["us", "eu", "apac", "a|b", "", "2024", "all regions", "ü", "it's", "a,b", "x" * 20]
BASE = "airflow.partition_mappers."


def main():
    seed, count, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    draw = random.Random(seed)
    lines, made = [], 0
    while made < count:
        kind = draw.choices([mapper_line, cron_line, assets_line], [8, 3, 1])[0]
        line, number = kind(draw)
        lines.append(json.dumps(line, separators=(",", ":"), ensure_ascii=False))
        made += number
    with open(output, "wb") as file:
        file.write(zlib.compress(("\n".join(lines) + "\n").encode(), 9))
    print(f"seed {seed}: {made} keys and dates in {len(lines)} lines")


def mapper_line(draw):
    form = mapper(draw)
    try:
        found = decode_partition_mapper(form)
    except Exception:
        return ["mapper", form, "error", "error"], 1
    mapped, back = [], []
    candidates = []
    for _ in range(12):
        key = key_for(draw, form)
        answer = attempt(lambda: found.to_downstream(key))
        if not isinstance(answer, str):
            # A set of segments has no order.
            answer = sorted(answer) if "Segment" in json.dumps(form) else list(answer)
        mapped.append([key, answer])
        if answer != "error":
            candidates += [answer] if isinstance(answer, str) else draw.sample(answer, min(2, len(answer)))
    for key in [*candidates[:8], *(key_for(draw, form) for _ in range(2)), text_of(draw, moment(draw), "%Y-%m-%d")]:
        date = attempt(lambda: found.to_partition_date(key))
        if is_far(date):
            continue
        expected, satisfied = None, []
        if found.is_rollup:
            expected = attempt(lambda: sorted(found.to_upstream(key)))
            if expected != "error":
                for _ in range(3):
                    received = draw.sample(expected, draw.randint(0, len(expected)))
                    received = expected if draw.random() < 0.3 else received
                    received = received[: draw.choice([1, 3, 100])] + draw.choice([[], ["other"]])
                    answer = found.wait_policy.is_satisfied_by_keys(matched=set(received), expected=frozenset(expected))
                    satisfied.append([received, answer.satisfied and not answer.unreachable])
        back.append([key, iso(date), expected, satisfied])
    return ["mapper", form, mapped, back], len(mapped) + len(back)


def mapper(draw, depth=0):
    kind = draw.random()
    most = {"max_downstream_keys": draw.choice([1, 7, 1000])} if draw.random() < 0.1 else {}
    if kind < 0.5 or depth > 2:
        return temporal(draw, draw.choice(list(GRAINS)), most)
    if kind < 0.56:
        return form("identity.IdentityMapper", most)
    if kind < 0.62:
        return form("allowed_key.AllowedKeyMapper", {"allowed_keys": draw.sample(WORDS, 4)} | most)
    if kind < 0.66:
        return form("fixed_key.FixedKeyMapper", {"downstream_key": draw.choice(WORDS)} | most)
    if kind < 0.72:
        mappers = [mapper(draw, depth + 1) for _ in range(draw.randint(2, 3))]
        return form("chain.ChainMapper", {"mappers": mappers} | most)
    if kind < 0.8:
        mappers = [mapper(draw, depth + 1) for _ in range(draw.randint(2, 3))]
        return form("product.ProductMapper", {"mappers": mappers, "delimiter": draw.choice(["|", "|", "|", "::", " ", ""])} | most)
    if kind < 0.92:
        period = draw.choice(WINDOWS)
        upstream = draw.choice([temporal(draw, PERIODS[period], {}), mapper(draw, depth + 1)])
        return form(
            "base.RollupMapper",
            {"upstream_mapper": upstream, "window": window(draw, period), "wait_policy": policy(draw)} | most,
        )
    period = draw.choice(WINDOWS)
    upstream = temporal(draw, PERIODS[period], {}) if draw.random() < 0.8 else mapper(draw, depth + 1)
    downstream = temporal(draw, draw.choice(list(GRAINS)), {}) if draw.random() < 0.8 else mapper(draw, depth + 1)
    return form(
        "temporal.FanOutMapper",
        {"upstream_mapper": upstream, "window": window(draw, period), "downstream_mapper": downstream} | most,
    )


def temporal(draw, grain, most):
    zone = draw.choice(ZONES) if draw.random() < 0.9 else draw.choice([0, 3600, -12600, 20700])
    output = GRAINS[grain] if draw.random() < 0.6 else draw.choice(OUTPUTS)
    fields = {"timezone": zone, "input_format": draw.choice(INPUTS), "output_format": output}
    return form(f"temporal.StartOf{grain}Mapper", fields | most)


def window(draw, period):
    if draw.random() < 0.15:
        return form("window.SegmentWindow", {"segments": draw.choices(WORDS, k=draw.randint(0, 4))})
    period = period if draw.random() < 0.9 else draw.choice(WINDOWS)
    return form(f"window.{period}Window", {"direction": draw.choice(["forward", "backward"])})


def policy(draw):
    if draw.random() < 0.5:
        return form("wait_policy.WaitForAll", {})
    return form("wait_policy.MinimumCount", {"n": draw.choice([1, 2, 5, 20, 100, -1, -3, -50, 0])})


def form(name, var):
    return {"__type": BASE + name, "__var": var}


def key_for(draw, form):
    """One that the mapper is likely to know."""
    var = form["__var"]
    if draw.random() < 0.08:
        return draw.choice(WORDS)
    if "input_format" in var:
        return text_of(draw, moment(draw, var["timezone"]), var["input_format"])
    if "allowed_keys" in var:
        return draw.choice([*var["allowed_keys"], "no"])
    if "delimiter" in var:
        return var["delimiter"].join(key_for(draw, part) for part in var["mappers"][: 3 if draw.random() < 0.95 else 1])
    if "mappers" in var:
        return key_for(draw, var["mappers"][0])
    if "upstream_mapper" in var:
        return key_for(draw, var["upstream_mapper"])
    return draw.choice(WORDS)


def text_of(draw, when, format):
    text = when.strftime(format)
    change = draw.random()
    if change < 0.04:
        text = text.lower()
    elif change < 0.08:
        text = text.replace("0", "", 1)
    elif change < 0.11:
        text += draw.choice([" ", "\n", "x", "0"])
    elif change < 0.13:
        text = text.replace("+0000", draw.choice(["Z", "+00:00", "+01:30", "-0730", "z", "+99:00", "+01:00:30"]))
    elif change < 0.15 and text:
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice("0123456789-: ") + text[at + 1 :]
    return text


CHANGES = {}


def changes(zone):
    if zone not in CHANGES:
        found, place = [], zoneinfo.ZoneInfo(zone)
        at = dt.datetime(2010, 1, 1, tzinfo=UTC)
        while at.year < 2035:
            later = at + dt.timedelta(hours=6)
            if later.astimezone(place).utcoffset() != at.astimezone(place).utcoffset():
                minutes = range(6 * 60 + 1)
                before = at.astimezone(place).utcoffset()
                first = bisect.bisect_left(
                    minutes, True, key=lambda m: (at + dt.timedelta(minutes=m)).astimezone(place).utcoffset() != before
                )
                found.append(at + dt.timedelta(minutes=first))
            at = later
        CHANGES[zone] = found
    return CHANGES[zone]


def moment(draw, zone="UTC"):
    """On the zone's clock; also such that the clock leaves out."""
    near = changes(zone) if isinstance(zone, str) else []
    if near and draw.random() < 0.5:
        at = draw.choice(near) + dt.timedelta(minutes=draw.randint(-200, 200))
        at = at.astimezone(zoneinfo.ZoneInfo(zone)).replace(tzinfo=UTC) + dt.timedelta(minutes=draw.choice([0, 0, -60, 60, 30]))
    else:
        first = dt.datetime(1970, 1, 1, tzinfo=UTC) if draw.random() < 0.95 else dt.datetime(1, 1, 1, tzinfo=UTC)
        at = first + dt.timedelta(seconds=draw.randint(0, 65 * 365 * 86400))
    if draw.random() < 0.4:
        at = at.replace(minute=0, second=0)
    if draw.random() < 0.3:
        at = at.replace(hour=0, minute=0, second=0)
    if draw.random() < 0.1:
        at = at.replace(microsecond=draw.randint(0, 999999))
    return at


def cron_line(draw):
    zone = draw.choice(ZONES) if draw.random() < 0.95 else draw.choice([3600, -12600])
    var = {
        "expression": draw.choice(CRONS),
        "timezone": zone,
        "run_immediately": draw.choice([True, False, False, None, 600.0, 86400.0]),
        "run_offset": draw.choice([0, 0, None, 1, -1, 2, -3, 24, 1.5]),
        "key_format": "%Y-%m-%dT%H:%M:%S" if draw.random() < 0.5 else draw.choice(INPUTS + OUTPUTS),
    }
    form = {"__type": "airflow.timetables.trigger.CronPartitionTimetable", "__var": var}
    now = instant(draw, zone)
    near = lambda: now + dt.timedelta(minutes=draw.randint(-60 * 24 * draw.choice([1, 3, 40]), 60 * 24 * draw.choice([0, 1])))  # noqa: E731
    question = {
        "now": iso(now),
        "last": iso(near()) if draw.random() < 0.5 else None,
        "earliest": iso(near()) if draw.random() < 0.5 else None,
        "latest": iso(near()) if draw.random() < 0.2 else None,
        "catchup": draw.random() < 0.5,
    }
    timetable = decode_timetable(form)
    trigger.utcnow = lambda: coerce_datetime(now)
    date = lambda name: question[name] and coerce_datetime(dt.datetime.fromisoformat(question[name]))  # noqa: E731
    last = question["last"] and DagRunInfo(run_after=date("last"), data_interval=None)
    restriction = TimeRestriction(date("earliest"), date("latest"), question["catchup"])
    info = attempt(lambda: timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction))
    answer = info
    keys = [text_of(draw, moment(draw, zone), var["key_format"]) for _ in range(2)]
    if info is not None and info != "error":
        answer = [iso(info.run_after), iso(info.partition_date), info.partition_key]
        keys.append(info.partition_key)
    decoded = dates_of(timetable, keys)
    return ["cron", form, question, answer, decoded], 1 + len(decoded)


def instant(draw, zone):
    near = changes(zone) if isinstance(zone, str) else []
    if near and draw.random() < 0.5:
        return draw.choice(near) + dt.timedelta(minutes=draw.randint(-300, 300))
    at = dt.datetime(2010, 1, 1, tzinfo=UTC) + dt.timedelta(seconds=draw.randint(0, 25 * 365 * 86400))
    return at.replace(second=0) if draw.random() < 0.7 else at


def assets_line(draw):
    config, used = [], set()
    for _ in range(draw.randint(0, 3)):
        asset = leaf(draw)
        if asset["__type"] != "asset_alias" and json.dumps(asset) not in used:
            used.add(json.dumps(asset))
            config.append([asset, mapper(draw)])
    var = {
        "asset_condition": condition(draw),
        "default_partition_mapper": mapper(draw),
        "partition_mapper_config": config,
    }
    form = {"__type": "airflow.timetables.simple.PartitionedAssetTimetable", "__var": var}
    try:
        timetable = decode_timetable(form)
    except Exception:
        return ["assets", form, "error", []], 1
    keys = []
    for _ in range(4):
        key = key_for(draw, var["default_partition_mapper"])
        key = attempt(lambda: timetable.default_partition_mapper.to_downstream(key)) if draw.random() < 0.8 else key
        keys.append(key if isinstance(key, str) else "many")
    decoded = dates_of(timetable, keys)
    return ["assets", form, compute_rollup_fingerprint(timetable), decoded], 1 + len(decoded)


def dates_of(timetable, keys):
    dates = [[key, attempt(lambda: timetable.resolve_partition_date(key))] for key in keys]
    return [[key, iso(date)] for key, date in dates if not is_far(date)]


def is_far(date):
    """No tables of zones agree on what comes after 2099."""
    return isinstance(date, dt.datetime) and date.year > 2099


def condition(draw, depth=0):
    if depth > 1 or draw.random() < 0.4:
        return leaf(draw)
    objects = [condition(draw, depth + 1) for _ in range(draw.randint(1, 3))]
    return {"__type": draw.choice(["asset_all", "asset_any"]), "objects": objects}


def leaf(draw):
    name = draw.choice(["a", "b", "c"])
    kind = draw.random()
    if kind < 0.6:
        return {"__type": "asset", "name": name, "uri": f"s3://{name}", "group": "asset", "extra": {}}
    if kind < 0.9:
        return {"__type": "asset_ref", **draw.choice([{"name": name}, {"uri": f"s3://{name}"}])}
    return {"__type": "asset_alias", "name": name, "group": "asset"}


def attempt(question):
    try:
        return question()
    except Exception:
        return "error"


def iso(value):
    return value.astimezone(UTC).isoformat() if isinstance(value, dt.datetime) else value


if __name__ == "__main__":
    main()
