"""Random DAGs, a seed each, as cases. Small, and of one possible end: nothing in them depends on which of two tasks is
faster, as far as the generator can know. Where Airflow's own rules leave that open (`is_race`), a case does not count.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from play import Case

FIRST, QUICK = 1, 60
IN_A_FILE = 10
NOT_YET: dict[str, str] = {}

HEAD = '''"""Random DAGs of the differential tests."""

import datetime as dt

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator, ShortCircuitOperator
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, Asset, BaseOperator, TaskGroup, task_group
from airflow.sdk.exceptions import AirflowSkipException

SOON, NOW = dt.timedelta(seconds=1), dt.timedelta(0)


class Work(BaseOperator):
    """Its item is its fate: below zero it fails, at zero it skips; before that it fails on so many tries."""

    template_fields = ("item", "tag")

    def __init__(self, item=1, fails=0, tag=None, **kwargs):
        super().__init__(**kwargs)
        self.item, self.fails, self.tag = item, fails, tag

    def execute(self, context):
        if context["ti"].try_number <= self.fails:
            raise RuntimeError("not yet")
        if self.tag:
            context["ti"].xcom_push("tag", f"{self.tag}!")
        return self.end()

    def end(self):
        if isinstance(self.item, (list, tuple, dict, str)):
            return self.item
        if self.item == 0:
            raise AirflowSkipException
        if self.item < 0:
            raise RuntimeError("as told")
        return self.item + 1


class Patient(Work):
    """Waits in the triggerer first."""

    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(dt.timedelta(milliseconds=200)), method_name="resume")

    def resume(self, context, event=None):
        return self.end()


def answer(value, **_):
    return value


def tripled(value):
    return value * 3 if isinstance(value, int) else value


def second_time(ti, **context):
    return ti.get_first_reschedule_date(context) is not None

'''

RULES = [
    "all_success", "all_failed", "all_done", "all_done_min_one_success", "one_success", "one_failed", "one_done",
    "none_failed", "none_failed_min_one_success", "none_skipped", "all_skipped", "always",
]  # fmt: skip
# Those that look at nothing before all upstreams have ended.
PATIENT_RULES = ["all_success", "all_done", "none_failed", "none_failed_min_one_success"]
BAD = {"failed", "upstream_failed"}


@dataclass
class Node:
    """A task of a DAG, as far as others have to know it."""

    id: str
    variable: str
    rule: str = "all_success"
    ups: list[Node] = field(default_factory=list)
    mapped: str | None = None  # "literal", "xcom", "group"
    items: str | None = None  # what its XCom can be mapped over
    closed: bool = False  # a branch: only its own followers may follow
    text: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """A DAG's text and structure."""

    dag_id: str
    nodes: list[Node]
    text: str
    history: list[list]


class Draw:
    """Draws one DAG."""

    def __init__(self, seed: int):
        self.random = random.Random(f"modalflow {seed}")
        self.dag_id = f"random_{seed}"
        self.nodes: list[Node] = []
        self.flavour = self.random.choices(["free", "past", "fail_fast"], [10, 2, 1])[0]
        # Where a short circuit skips everything below it, or a setup does not succeed, nobody may start early or fail.
        self.calm = self.random.random() < 0.25
        self.arguments: dict[str, str] = {}

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def plan(self) -> Plan:
        lines = []
        count = self.random.randint(2, 8)
        group: str | None = None
        while len(self.nodes) < count:
            if group is None and self.flavour == "free" and self.chance(0.12):
                group = f"g{len(self.nodes)}"
                lines.append(f"    with TaskGroup({group!r}):")
                end = len(self.nodes) + self.random.randint(1, 3)
            for node in self.draw(group):
                lines += [("        " if group else "    ") + line for line in node.text]
            if group and len(self.nodes) >= end:
                group = None
        lines += self.scope()
        for node in self.nodes:
            if node.ups:
                ups = ", ".join(up.variable for up in node.ups)
                lines.append(f"    [{ups}] >> {node.variable}")
        head, history = self.dag()
        return Plan(self.dag_id, self.nodes, "\n".join([head, *lines, ""]), history)

    def dag(self) -> tuple[str, list[list]]:
        """The DAG's own arguments, and how it is run."""
        arguments = [repr(self.dag_id), "catchup=True", 'params={"n": 3}']
        if self.flavour == "fail_fast":
            arguments.append("fail_fast=True")
        if self.chance(0.15):
            arguments.append("max_active_tasks=1")
        if self.chance(0.2):
            arguments.append(f'default_args={{"priority_weight": {self.random.randint(1, 9)}, "owner": "somebody"}}')
        if self.flavour == "past" or self.chance(0.1):
            if self.flavour == "past" or self.chance(0.5):
                arguments.append(f"max_active_runs={self.random.randint(1, 3)}")
            days = self.random.randint(2, 3)
            arguments.append(f"schedule='@daily', start_date=dt.datetime(2026, 1, 1), end_date=dt.datetime(2026, 1, {days})")
            history = [["runs", self.dag_id, days]]
        else:
            arguments.append("schedule=None")
            more = {"conf": {"n": self.random.randint(1, 5)}} if self.chance(0.3) else {}
            if self.chance(0.4):
                more["logical_date"] = "2026-01-05T06:00:00+00:00"
            history = [["trigger", self.dag_id, "one", more], ["run", self.dag_id, "one", "finished"]]
            if self.chance(0.1):
                history += [["trigger", self.dag_id, "two", {}], ["run", self.dag_id, "two", "finished"]]
        return f"with DAG({', '.join(arguments)}):", history

    def draw(self, group: str | None) -> list[Node]:
        """One more task, or a branch with its followers, or a mapped group."""
        if self.flavour == "fail_fast":
            return [self.add(self.task(None, self.nodes[-1:], "all_success"))]
        ups = [up for up in self.nodes if not up.closed and self.chance(0.4)]
        kind = self.random.random()
        if kind < 0.12 and group is None:
            return self.branch(ups)
        if kind < 0.2 and group is None and self.flavour == "free":
            return self.mapped_group(ups)
        return [self.add(self.task(group, ups, self.rule(ups)))]

    def rule(self, ups: list[Node]) -> str:
        if not ups or self.chance(0.4):
            return "all_success"
        return self.random.choice(PATIENT_RULES if self.calm else RULES)

    def add(self, node: Node) -> Node:
        self.nodes.append(node)
        return node

    def name(self, group: str | None) -> tuple[str, str, str]:
        local = f"t{len(self.nodes)}"
        return local, f"{group}.{local}" if group else local, local

    def item(self) -> int:
        if self.flavour == "past":
            return self.random.choices([0, 1, 4], [1, 3, 2])[0]
        if self.calm:
            return self.random.choice([1, 2, 3])
        return self.random.choices([-1, 0, 1, 2], [3, 2, 5, 3])[0]

    def limits(self) -> str:
        text = ""
        if self.chance(0.04):
            text += ", queue='fast'"
        if self.chance(0.04):
            text += ", do_xcom_push=False"
        if self.chance(0.05):
            text += f", outlets=[Asset('modalflow://{self.dag_id}')]"
        if self.chance(0.1):
            text += f", priority_weight={self.random.randint(2, 20)}"
        if self.chance(0.15):
            text += f", weight_rule={self.random.choice(['upstream', 'absolute', 'downstream'])!r}"
        if self.chance(0.1):
            text += f", pool='narrow', pool_slots={self.random.randint(1, 2)}"
        if self.chance(0.06):
            text += ", max_active_tis_per_dag=1"
        elif self.chance(0.06):
            text += ", max_active_tis_per_dagrun=1"
        if self.flavour == "past" and self.chance(0.7):
            text += ", depends_on_past=True" if self.chance(0.7) else ", wait_for_downstream=True"
        return text

    def task(self, group: str | None, ups: list[Node], rule: str) -> Node:
        local, full, variable = self.name(group)
        common = f"task_id={local!r}" + (f", trigger_rule={rule!r}" if rule != "all_success" else "") + self.limits()
        node = Node(full, variable, rule, ups)
        over = [up for up in self.nodes if up.items and up.mapped is None]
        kind = self.random.random()
        retries = ""
        fails = 0
        if self.chance(0.25):
            count = self.random.randint(1, 2)
            fails = self.random.randint(0, count) if self.flavour == "past" or self.calm else self.random.randint(0, count + 1)
            delay = self.random.choice(["NOW", "NOW", "SOON"])
            retries = f", retries={count}, retry_delay={delay}"
        if kind < 0.22:
            text = f"EmptyOperator({common})"
        elif kind < 0.32 and self.flavour != "fail_fast":
            low = 1 if self.calm or self.flavour == "past" else -1
            items = [self.random.randint(low, 3) for _ in range(self.random.randint(0, 3))]
            node.items = self.random.choices(["list", "dict"], [5, 1])[0]
            value = items if node.items == "list" else {f"k{place}": item for place, item in enumerate(items)}
            text = f"Work({common.replace(', do_xcom_push=False', '')}, item={value})"
        elif kind < 0.5 and self.flavour == "free" and rule != "always":
            if over and self.chance(0.6):
                source = self.random.choice(over)
                node.rule = rule = self.random.choice(["all_success", "none_failed", "all_done"])
                common = f"task_id={local!r}, trigger_rule={rule!r}" + self.limits()
                node.ups = [*[up for up in ups if up is not source], source]
                node.mapped = "xcom"
                values = self.over(source, [up for up in over if up.items == "list" and up is not source], node)
            else:
                node.mapped, values = "literal", self.literal()
            label = ", map_index_template='{{ task.item }}'" if self.chance(0.15) else ""
            text = f"Work.partial({common}{retries}, fails={fails}{label}).{values}"
        elif kind < 0.56 and self.flavour == "free":
            text = f"PythonSensor({common}, python_callable=second_time, mode='reschedule', poke_interval=5, timeout=600)"
        elif kind < 0.6:
            text = f"Patient({common}, item={self.item()})"
        elif kind < 0.66 and self.flavour == "free":
            text = f"ShortCircuitOperator({common}, python_callable=answer, op_args=[{self.chance(0.5)}], ignore_downstream_trigger_rules={self.calm})"
            node.closed = not self.calm
        elif kind < 0.72:
            text = f"PythonOperator({common}{retries}, python_callable=answer, op_args=['{{{{ params.n }}}} of {{{{ run_id }}}}'])"
        else:
            text = f"Work({common}{retries}, fails={fails}, item={self.item()})"
        node.text = [f"{variable} = {text}"]
        return node

    def over(self, source: Node, others: list[Node], node: Node) -> str:
        """Mapping over another task's result."""
        output = f"{source.variable}.output"
        kind = self.random.random()
        if source.items == "list" and others and kind < 0.3:
            other = self.random.choice(others)
            node.ups = [*[up for up in node.ups if up is not other], other]
            if kind < 0.15:
                output += f".zip({other.variable}.output" + (", fillvalue=1)" if self.chance(0.5) else ")")
            else:
                output += f".concat({other.variable}.output)"
        elif source.items == "list" and kind < 0.45:
            output += ".map(tripled)"
        tags = ", tag=['x', 'y']" if self.chance(0.15) else ""
        return f"expand(item={output}{tags})"

    def literal(self) -> str:
        items = [self.item() for _ in range(self.random.randint(0, 3))]
        kind = self.random.random()
        if kind < 0.15:
            return f"expand_kwargs({[{'item': item, 'tag': f'n{place}'} for place, item in enumerate(items)]})"
        if kind < 0.3:
            return f"expand(item={items}, tag={['x', 'y'][: self.random.randint(1, 2)]})"
        return f"expand(item={items})"

    def branch(self, ups: list[Node]) -> list[Node]:
        """A branch and its followers, who follow nobody else: who comes first would be open."""
        branch = Node(f"t{len(self.nodes)}", f"t{len(self.nodes)}", "all_success", ups, closed=True)
        self.add(branch)
        followers = []
        for _ in range(self.random.randint(1, 3)):
            followers.append(self.add(self.task(None, [branch], "all_success")))
        for follower in followers:
            follower.ups = [up for up in follower.ups if up is branch or up.items]
            if follower.ups != [branch]:
                # Mapped over another task's result: then it is no follower of the branch alone.
                follower.ups = [up for up in follower.ups if up is not branch]
        mine = [follower for follower in followers if follower.ups == [branch]]
        chosen = [follower.id for follower in mine if self.chance(0.5)]
        branch.text = [f"{branch.variable} = BranchPythonOperator(task_id={branch.id!r}, python_callable=answer, op_args=[{chosen}])"]
        return [branch, *followers]

    def mapped_group(self, ups: list[Node]) -> list[Node]:
        """A task group mapped over a list or a result."""
        name = f"m{len(self.nodes)}"
        over = [up for up in self.nodes if up.items and up.mapped is None]
        source = self.random.choice(over) if over and self.chance(0.5) else None
        values = f"{source.variable}.output" if source else str([self.item() for _ in range(self.random.randint(0, 3))])
        lines = ["@task_group", f"def {name}(x):"]
        inner: list[Node] = []
        for number in range(self.random.randint(1, 3)):
            before = [up for up in inner if self.chance(0.7)]
            rule = "all_success" if not before or self.chance(0.5) else self.random.choice([rule for rule in RULES if rule != "always"])
            node = Node(f"{name}.i{number}", f"{name}_i{number}", "all_success" if number == 0 else rule, before, mapped="group")
            item = "x" if number == 0 else self.random.choice(["x", str(self.item())])
            text = f"Work(task_id='i{number}', item={item}"
            text += (f", trigger_rule={node.rule!r}" if node.rule != "all_success" else "") + ")"
            lines.append(f"    {node.variable} = {text}")
            if before:
                lines.append(f"    [{', '.join(up.variable for up in before)}] >> {node.variable}")
            inner.append(node)
        lines.append(f"{name}_group = {name}.expand(x={values})")
        outside = [up for up in ups if up is not source]
        if outside:
            lines.append(f"[{', '.join(up.variable for up in outside)}] >> {name}_group")
        # To the others the group is one node.
        node = Node(name, f"{name}_group", "all_success", [], mapped="group", text=lines)
        self.add(node)
        self.inner.setdefault(name, (inner, [*outside, *([source] if source else [])]))
        return [node]

    @property
    def inner(self) -> dict[str, tuple[list[Node], list[Node]]]:
        return self.__dict__.setdefault("_inner", {})

    def scope(self) -> list[str]:
        """A setup before some of the tasks, a teardown after them."""
        inside = [node for node in self.nodes if node.rule == "all_success" and not node.mapped and not node.closed and self.chance(0.5)]
        if self.flavour == "fail_fast" or not inside or not self.chance(0.25):
            return []
        setup, teardown = Node("setup", "setup"), Node("teardown", "teardown")
        cut = any("ShortCircuit" in line for node in self.nodes for line in node.text)
        item = self.random.choice([1, 1, 1, 0, -1]) if self.calm and not cut else 1
        strict = ", on_failure_fail_dagrun=True" if self.chance(0.4) else ""
        end = self.random.choice([1, 1, -1]) if self.flavour == "free" else 1
        lines = [
            f"    setup = Work(task_id='setup', item={item}).as_setup()",
            f"    teardown = Work(task_id='teardown', item={end}).as_teardown(setups=setup{strict})",
        ]
        followed = {id(up) for node in self.nodes for up in node.ups}
        for node in inside:
            if not any(up in inside for up in node.ups) and not any(up.closed for up in node.ups):
                lines.append(f"    setup >> {node.variable}")
                node.ups.append(setup)
            if id(node) not in followed:
                lines.append(f"    {node.variable} >> teardown")
                teardown.ups.append(node)
        if not teardown.ups:
            lines.append(f"    {inside[-1].variable} >> teardown")
        return lines


def is_race(case: Case, golden: dict) -> bool:
    """Whether Airflow's own answer hangs on who ended first: a task that waits for success is skipped by a skipped
    upstream at once, and upstream_failed by a failed one. Or it did not hear of a task's end in time: when its executor
    reports the end of a try that is scheduled again by then, it takes the task for lost and fails it. Or a task of a mapped
    group may run although the group's first task was skipped or failed before the list that the group is mapped over was
    there: it is expanded if that list comes first, and upstream_failed if not."""
    if any(row["event"] == "state mismatch" for row in golden["end"].get("log", [])):
        return True
    draw = Draw(int(case.name.removeprefix("random_")))
    plan = draw.plan()
    states: dict[tuple[str, str], set] = {}
    for row in golden["end"].get("task_instance", []):
        for name in {row["task_id"], row["task_id"].partition(".")[0]}:
            states.setdefault((row["run_id"], name), set()).add(row.get("state"))
    groups = [Node(name, name, "all_success", outside, mapped="xcom") for name, (_, outside) in draw.inner.items()]
    early = BAD | {"skipped"}
    for row in golden["end"].get("task_instance", []):
        group, _, inner = row["task_id"].partition(".")
        if group in draw.inner and inner and row["map_index"] == -1 and row.get("state") in early:
            if any(node.rule != "all_success" for node in draw.inner[group][0]):
                return True
    for run in {run for run, _ in states}:
        for node in [*plan.nodes, *groups]:
            if node.rule != "all_success" and node.mapped != "xcom":
                continue
            above = set().union(*(states.get((run, up.id), set()) for up in node.ups)) if node.ups else set()
            if above & BAD and "skipped" in above:
                return True
    return False


def cases(seed: int, count: int) -> list[Case]:
    made = []
    for number in range(seed, seed + count):
        plan = Draw(number).plan()
        made.append(Case(plan.dag_id, [plan.dag_id], plan.history, source=plan.text))
    return made


def files(cases: list[Case]) -> dict[str, str]:
    return {
        f"random_{start}.py": HEAD + "\n".join(case.source for case in cases[start : start + IN_A_FILE])
        for start in range(0, len(cases), IN_A_FILE)
    }
