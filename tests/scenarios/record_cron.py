#!/usr/bin/env python3
"""Records what Airflow's own cron arithmetic answers: the match after an instant and the one before it.

    python record_cron.py SEED COUNT OUTPUT.jsonl.zlib

Needs an environment with apache-airflow 3.3.2. Expressions, zones and instants are drawn at random from the seed, half
of the instants near a change of the zone's offset. A line is [expression, zone, [[instant, next, previous], ...]];
instants are microseconds since 1970, a zone is a name or seconds east; null stands for an expression that Airflow
refuses, and for a date that it does not find. COUNT is the number of instants.
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
from airflow._shared.timezones.timezone import coerce_datetime, parse_timezone  # noqa: E402
from airflow.timetables._cron import CronMixin  # noqa: E402
from airflow.utils.dates import cron_presets  # noqa: E402
from airflow.exceptions import AirflowTimetableInvalid  # noqa: E402
from croniter import CroniterError  # noqa: E402

REFUSED = (AirflowTimetableInvalid, CroniterError, OverflowError, ValueError)

ZONES = """
UTC Europe/Zurich Europe/London Europe/Lisbon Europe/Dublin Europe/Moscow Europe/Istanbul America/New_York
America/Los_Angeles America/Sao_Paulo America/St_Johns America/Havana America/Santiago America/Asuncion America/Caracas
America/Godthab Asia/Kolkata Asia/Kathmandu Asia/Tehran Asia/Tokyo Asia/Gaza Asia/Pyongyang Asia/Amman Africa/Casablanca
Africa/Cairo Africa/Monrovia Australia/Lord_Howe Australia/Sydney Australia/Eucla Pacific/Apia Pacific/Auckland
Pacific/Chatham Pacific/Norfolk Pacific/Kwajalein Atlantic/Azores Antarctica/Troll
""".split()
PER_EXPRESSION = 12
FIRST, LAST = dt.datetime(1990, 1, 1, tzinfo=dt.timezone.utc), dt.datetime(2036, 12, 31, tzinfo=dt.timezone.utc)
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
DAYS = "sun mon tue wed thu fri sat".split()
RANGES = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7), (0, 59), (1990, 2040)]


def main():
    seed, count, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    draw = random.Random(seed)
    lines = []
    made = 0
    while made < count:
        zone = draw.choice(ZONES) if draw.random() < 0.9 else draw.choice([0, 3600, 20700, -12600, 50400, -43200])
        cron = CronMixin.__new__(CronMixin)
        expression = expression_of(draw)
        cron._expression = cron_presets.get(expression, expression)
        cron._timezone = parse_timezone(zone)
        instants = []
        for _ in range(min(PER_EXPRESSION, count - made)):
            at = instant(draw, zone)
            instants.append([micros(at), answer(cron, cron._get_next, at), answer(cron, cron._get_prev, at)])
        made += len(instants)
        lines.append(json.dumps([expression, zone, instants], separators=(",", ":")))
    with open(output, "wb") as out:
        out.write(zlib.compress("\n".join(lines).encode(), 9))
    print(f"{made} instants of {len(lines)} expressions")


def answer(cron, step, at):
    try:
        cron.validate()
        return micros(step(coerce_datetime(at)))
    except REFUSED:
        return None


def micros(at):
    return int(at.replace(microsecond=0).timestamp()) * 1_000_000 + at.microsecond


def transitions(zone, known={}):
    if zone not in known:
        info = zoneinfo.ZoneInfo(zone)
        found, at = [], FIRST
        while at < LAST:
            later = at + dt.timedelta(hours=12)
            if at.astimezone(info).utcoffset() != later.astimezone(info).utcoffset():
                minutes = range(12 * 60)
                before = at.astimezone(info).utcoffset()
                moved = bisect.bisect_left(
                    minutes, True, key=lambda m: (at + dt.timedelta(minutes=m)).astimezone(info).utcoffset() != before
                )
                found.append(at + dt.timedelta(minutes=moved))
            at = later
        known[zone] = found
    return known[zone]


def instant(draw, zone):
    moves = transitions(zone) if isinstance(zone, str) else []
    if moves and draw.random() < 0.5:
        at = draw.choice(moves) + dt.timedelta(minutes=draw.randint(-1600, 1600) if draw.random() < 0.3 else draw.randint(-200, 200))
    else:
        at = FIRST + dt.timedelta(minutes=draw.randrange(int((LAST - FIRST).total_seconds()) // 60))
    if draw.random() < 0.3:
        at = at.replace(minute=draw.choice([0, 0, 15, 30, 45]))
    if draw.random() < 0.1:
        at = at.replace(hour=0, minute=0)
    if draw.random() < 0.25:
        at += dt.timedelta(seconds=draw.randint(0, 59))
    if draw.random() < 0.15:
        at += dt.timedelta(microseconds=draw.randint(0, 999_999))
    return at


def expression_of(draw):
    kind = draw.random()
    if kind < 0.03:
        return draw.choice(["@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly", "@annually", "@midnight"])
    length = 5 if kind < 0.8 else 6 if kind < 0.93 else 7
    if kind > 0.99:
        length = draw.choice([1, 4, 8])
    fields = [field(draw, min(index, 6)) for index in range(length)]
    if draw.random() < 0.02:
        fields[draw.randrange(len(fields))] = draw.choice(["60", "-1", "*/0", "a", "1-", "1,,2", "5#6", "L8", "32W", "", "1-5-7", "*/", "0", "LW", "#2", "13"])
    text = draw.choice([" ", " ", " ", "  "]).join(fields)
    return text.upper() if draw.random() < 0.1 else text


def field(draw, index):
    k = draw.random()
    if k < (0.2, 0.35, 0.55, 0.6, 0.5, 0.2, 0.6)[index]:
        return "*"
    if index in (2, 4) and k > 0.97:
        return "?"
    if index == 2 and k > 0.86:
        return draw.choice(["L", "L", "15W", "1W", "31W", "W10", "30W", "L,15", "1,L", "10-L", "28-L/2", "1-31"])
    if index == 4 and k > 0.8:
        day = draw.choice([*DAYS, *"0123456", "7"])
        return draw.choice(
            [f"{day}#{draw.randint(1, 5)}", f"L{draw.randint(0, 7)}", f"{day}#1,{day}#3", "mon-fri#2", f"L{draw.randint(0, 6)},L2",
             f"{draw.randint(0, 6)}#2,{draw.randint(0, 6)}#4", "1,3#2", "0-6", "1-7", "5#5"]
        )
    return ",".join(item(draw, index) for _ in range(draw.choice([1, 1, 1, 2, 3])))


def item(draw, index):
    low, high = RANGES[index]
    a, b = draw.randint(low, high), draw.randint(low, high)
    name = {3: lambda n: MONTHS[n - 1], 4: lambda n: DAYS[n % 7]}.get(index)
    show = (lambda n: name(n)) if name and draw.random() < 0.4 else str
    k = draw.random()
    if k < 0.35:
        return show(a)
    if k < 0.55:
        return f"{show(min(a, b))}-{show(max(a, b))}"
    if k < 0.63:
        return f"{show(a)}-{show(b)}"
    step = draw.choice([1, 2, 3, 5, 7, 10, 15, 20, 30, 45])
    if k < 0.83:
        return f"*/{step}"
    if k < 0.95:
        return f"{show(a)}-{show(b)}/{step}"
    return f"{a}/{step}"


if __name__ == "__main__":
    main()
