#!/usr/bin/env python3
"""Records what Airflow's own timetables answer, as test data for ours.

    python record_timetables.py SEED COUNT OUTPUT.jsonl

Needs an environment with apache-airflow 3.3.2. Timetables, zones, restrictions and clocks are drawn at random from
the seed, half of the clocks near a change of the zone's offset. A line is one question with its answer.
"""
import datetime as dt
import json
import logging
import os
import random
import sys
import tempfile
import zoneinfo
os.environ.setdefault('AIRFLOW_HOME', tempfile.mkdtemp())
logging.disable(logging.CRITICAL)
import structlog
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
from airflow._shared.timezones import timezone as tzmod
from airflow.timetables import trigger, interval, simple, events
from airflow.timetables.base import TimeRestriction, DataInterval
from airflow.serialization.decoders import decode_timetable
from airflow._shared.timezones.timezone import coerce_datetime
seed = int(sys.argv[1])
N = int(sys.argv[2])
out = open(sys.argv[3], 'w')
R = random.Random(seed)
NOW = [None]

def utcnow():
    return NOW[0]
tzmod.utcnow = utcnow
trigger.utcnow = utcnow
interval.utcnow = utcnow
trigger.time = type('T', (), {'time': staticmethod(lambda: NOW[0].timestamp())})
ZONES = ['UTC', 'Europe/Zurich', 'America/New_York', 'Australia/Lord_Howe', 'America/Sao_Paulo', 'Asia/Kolkata', 'Africa/Casablanca', 'Pacific/Apia', 'Asia/Tokyo', 'Europe/London', 'America/St_Johns', 'Pacific/Auckland']
U = dt.timezone.utc
trans = {}

def transitions(z):
    if z in trans:
        return trans[z]
    zi = zoneinfo.ZoneInfo(z)
    r = []
    t = dt.datetime(2015, 1, 1, tzinfo=U)
    while t.year < 2030:
        n = t + dt.timedelta(hours=6)
        if n.astimezone(zi).utcoffset() != t.astimezone(zi).utcoffset():
            a, b = (t, n)
            while b - a > dt.timedelta(minutes=1):
                m = a + (b - a) / 2
                if m.astimezone(zi).utcoffset() == a.astimezone(zi).utcoffset():
                    a = m
                else:
                    b = m
            r.append(b.replace(second=0, microsecond=0))
        t = n
    trans[z] = r
    return r

def when(z):
    k = R.random()
    ts = transitions(z) if isinstance(z, str) else []
    if ts and k < 0.5:
        t = R.choice(ts) + dt.timedelta(minutes=R.randint(-300, 300))
    else:
        t = dt.datetime(2014, 1, 1, tzinfo=U) + dt.timedelta(minutes=R.randint(0, 60 * 24 * 365 * 15))
    k = R.random()
    if k < 0.3:
        t = t.replace(minute=R.choice([0, 0, 30, 15]))
    if k < 0.15:
        t = t.replace(hour=0, minute=0)
    if R.random() < 0.2:
        t += dt.timedelta(seconds=R.randint(0, 59))
    if R.random() < 0.15:
        t += dt.timedelta(microseconds=R.randint(0, 999999))
    return t

def fld(lo, hi, names=None):

    def v():
        x = R.randint(lo, hi)
        if names and R.random() < 0.4:
            return names[x - lo] if x - lo < len(names) else str(x)
        return str(x)
    k = R.random()
    if k < 0.32:
        return '*'
    if k < 0.62:
        return v()
    if k < 0.72:
        return f'*/{R.randint(1, hi + 1)}'
    if k < 0.82:
        a, b = (v(), v())
        s = f'{a}-{b}'
        return s + (f'/{R.randint(1, 7)}' if R.random() < 0.3 else '')
    if k < 0.94:
        return ','.join((v() for _ in range(R.randint(2, 4))))
    if k < 0.97:
        return f'{v()}/{R.randint(1, 9)}'
    return ','.join([f'{v()}-{v()}', v()])
MON = 'jan feb mar apr may jun jul aug sep oct nov dec'.split()
DOW = 'sun mon tue wed thu fri sat'.split()

def cron():
    k = R.random()
    if k < 0.15:
        return R.choice(['@hourly', '@daily', '@weekly', '@monthly', '@quarterly', '@yearly'])
    if k < 0.35:
        return R.choice(['0 * * * *', '*/15 * * * *', '30 2 * * *', '0 2 * * *', '0 0 * * *', '15 1-3 * * *', '0 */2 * * *', '*/5 0-6 * * *', '30 * * * *', '0 9 * * mon-fri', '0 0 1 * *', '0 12 l * *', '45 23 * * *', '0 0 29 2 *', '0 0 31 * *', '30 1,2,3 * * *'])
    m = fld(0, 59)
    h = fld(0, 23)
    d = fld(1, 31)
    mo = fld(1, 12, MON)
    w = fld(0, 7, DOW)
    if R.random() < 0.5:
        d = '*'
    if R.random() < 0.5:
        w = '*'
    if R.random() < 0.6:
        mo = '*'
    k = R.random()
    if k < 0.05:
        w = R.choice(['5#2', 'fri#1', 'L5', 'l0', '1#5', 'mon-wed#2', '2#1,4#3'])
    elif k < 0.08:
        d = R.choice(['15w', 'w1', 'l', 'l,15', '31w', '20-l', '?'])
    elif k < 0.1:
        w = '?'
    e = ' '.join([m, h, d, mo, w])
    if R.random() < 0.05:
        e += ' ' + fld(0, 59)
    elif R.random() < 0.02:
        e += ' 0 ' + R.choice(['2020-2030', '*/2', '2025', '*'])
    return e

def rel():
    d = {}
    for k, (a, b) in {'years': (0, 1), 'months': (0, 4), 'days': (0, 20), 'hours': (0, 23), 'minutes': (0, 59)}.items():
        if R.random() < 0.35:
            x = R.randint(a, b)
            if x:
                d[k] = x
    if R.random() < 0.1:
        d['weekday'] = [R.randint(0, 6)] + ([R.choice([1, 2, -1])] if R.random() < 0.5 else [])
    if R.random() < 0.08:
        d['hour'] = R.randint(1, 23)
    return d or {'days': 1}

def schedule():
    """A delta that is positive whatever the time of day: Airflow checks that against the real clock."""
    d = delta()
    if isinstance(d, dict):
        d = {k: v for k, v in d.items() if k not in ('hour', 'weekday')} or {'days': 1}
    return d

def delta():
    return rel() if R.random() < 0.4 else R.choice([60.0, 300.0, 3600.0, 86400.0, 604800.0, 5400.0, 90000.0, 1.5, 10800.0])

def ival():
    return 0.0 if R.random() < 0.5 else delta()

def runimm():
    return R.choice([True, False, False, None, 600.0, 7200.0, 86400.0])

def table(z, depth=0):
    k = R.random()
    T = 'airflow.timetables.'
    if k < 0.36:
        return (T + 'trigger.CronTriggerTimetable', {'expression': cron(), 'timezone': z, 'interval': ival(), 'run_immediately': runimm()})
    if k < 0.62:
        return (T + 'interval.CronDataIntervalTimetable', {'expression': cron(), 'timezone': z})
    if k < 0.72:
        return (T + 'interval.DeltaDataIntervalTimetable', {'delta': schedule()})
    if k < 0.8:
        return (T + 'trigger.DeltaTriggerTimetable', {'delta': schedule(), 'interval': ival()})
    if k < 0.88:
        return (T + 'trigger.MultipleCronTriggerTimetable', {'expressions': [cron() for _ in range(R.randint(1, 3))], 'timezone': z, 'interval': ival(), 'run_immediately': runimm()})
    if k < 0.91:
        return (T + 'simple.OnceTimetable', {})
    if k < 0.95:
        return (T + 'simple.ContinuousTimetable', {})
    if k < 0.96:
        return (T + 'simple.NullTimetable', {})
    ds = sorted((when('UTC') for _ in range(R.randint(0, 5))))
    return (T + 'events.EventsTimetable', {'event_dates': [x.isoformat() for x in ds], 'restrict_to_events': R.random() < 0.5, 'description': 'd', '_summary': 's'})

def iso(x):
    return None if x is None else x.astimezone(U).isoformat()
n = 0
errs = 0
while n < N:
    z = R.choice(ZONES) if R.random() < 0.95 else R.choice([3600, -12600, 19800])
    cls, var = table(z)
    now = coerce_datetime(when(z))
    NOW[0] = now
    near = lambda: coerce_datetime(now + dt.timedelta(minutes=R.randint(-60 * 24 * R.choice([1, 3, 40, 400]), 60 * 24 * R.choice([0, 1, 3]))) if R.random() < 0.7 else when(z))
    E = near() if R.random() < 0.6 else None
    L = near() if R.random() < 0.2 else None
    C = R.random() < 0.5
    last = None
    case = {'class': cls, 'var': var, 'now': iso(now)}
    try:
        t = decode_timetable({'__type': cls, '__var': var})
        if hasattr(t, 'validate'):
            t.validate()
    except Exception as ex:
        case['op'] = 'read'
        case['error'] = True
        out.write(json.dumps(case) + '\n')
        n += 1
        errs += 1
        continue
    if R.random() < 0.15:
        case['op'] = 'manual'
        try:
            i = t.infer_manual_data_interval(run_after=now)
            case['result'] = [iso(i.start), iso(i.end)]
        except Exception as ex:
            case['error'] = True
            errs += 1
    else:
        case['op'] = 'next'
        if R.random() < 0.6:
            if R.random() < 0.7:
                try:
                    i = t.next_dagrun_info(last_automated_data_interval=None, restriction=TimeRestriction(coerce_datetime(near()), None, True))
                    if i:
                        last = i.data_interval
                except Exception:
                    pass
            if last is None:
                a = near()
                last = DataInterval(a, a + dt.timedelta(minutes=R.choice([0, 0, 60, 1440, 7])))
            last = DataInterval(coerce_datetime(last.start.astimezone(U)), coerce_datetime(last.end.astimezone(U)))
        case.update(earliest=iso(E), latest=iso(L), catchup=C, last=None if last is None else [iso(last.start), iso(last.end)])
        try:
            i = t.next_dagrun_info(last_automated_data_interval=last, restriction=TimeRestriction(E, L, C))
            case['result'] = None if i is None else [iso(i.run_after), iso(i.data_interval.start), iso(i.data_interval.end)]
        except Exception as ex:
            case['error'] = True
            errs += 1
    out.write(json.dumps(case) + '\n')
    n += 1
print(n, errs)
