"""XComs of unusual sizes and names."""

from airflow.sdk import DAG, Param, task

MEGABYTE = 1024 * 1024


@task
def make(params=None):
    return "x" * (params["megabytes"] * MEGABYTE)


@task
def measure(text):
    return len(text)


with DAG("xcom_size", schedule=None, catchup=False, params={"megabytes": Param(20, type="integer")}):
    measure(make())


KEYS = ["a/b", "../../etc/passwd", ".", "ключ", "k" * 512, "with space", "item/1"]


@task
def push(ti=None):
    for number, key in enumerate(KEYS):
        ti.xcom_push(key=key, value={"number": number, "pad": "p" * 10_000})


@task
def pull(ti=None):
    return [ti.xcom_pull(task_ids="push", key=key)["number"] for key in KEYS]


with DAG("xcom_keys", schedule=None, catchup=False):
    push() >> pull()


@task
def ten(number):
    return {"number": number, "pad": "p" * 9_000}


@task
def collect(values):
    return [value["number"] for value in values]


with DAG("xcom_mapped", schedule=None, catchup=False):
    collect(ten.expand(number=list(range(10))))
