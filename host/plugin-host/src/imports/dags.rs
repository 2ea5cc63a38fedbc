//! `dags`: a serialized Dag, looked at on demand.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use wasmtime::component::Resource;

use crate::DagView;
use crate::bindings::host::dags;
use crate::call::CallState;

/// A Dag and where its tasks stand in it.
pub struct DagResource(Arc<Indexed>);

pub struct TaskResource {
    dag: Arc<Indexed>,
    task: usize,
}

struct Indexed {
    view: DagView,
    by_id: HashMap<String, usize>,
}

impl DagResource {
    pub(crate) fn new(view: DagView) -> DagResource {
        let by_id = tasks(&view.serialized)
            .iter()
            .enumerate()
            .filter_map(|(index, task)| {
                Some((body(task)?.get("task_id")?.as_str()?.to_owned(), index))
            })
            .collect();
        DagResource(Arc::new(Indexed { view, by_id }))
    }
}

impl Indexed {
    fn dag(&self) -> &Value {
        &self.view.serialized["dag"]
    }

    fn task(&self, index: usize) -> &Value {
        tasks(&self.view.serialized)
            .get(index)
            .and_then(body)
            .unwrap_or(&Value::Null)
    }

    /// A task's attribute: its own, what a mapped task was given by `partial`, or the defaults that the client serialized.
    fn attribute(&self, index: usize, name: &str) -> &Value {
        let task = self.task(index);
        let places = [
            &task[name],
            &task["partial_kwargs"][name],
            &self.view.serialized["client_defaults"]["tasks"][name],
        ];
        places
            .into_iter()
            .find(|value| !value.is_null())
            .unwrap_or(&Value::Null)
    }

    fn text(&self, index: usize, name: &str, default: &str) -> String {
        self.attribute(index, name)
            .as_str()
            .unwrap_or(default)
            .to_owned()
    }
}

fn tasks(serialized: &Value) -> &[Value] {
    serialized["dag"]["tasks"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

/// Airflow wraps a task as `{"__type": "operator", "__var": {…}}`.
fn body(task: &Value) -> Option<&Value> {
    task.get("__var")
        .or(Some(task))
        .filter(|body| body.is_object())
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .filter_map(|item| Some(item.as_str()?.to_owned()))
        .collect()
}

impl CallState {
    fn dag(&mut self, dag: &Resource<DagResource>) -> wasmtime::Result<Arc<Indexed>> {
        self.count_call()?;
        Ok(self.table.get(dag)?.0.clone())
    }

    fn task_text(
        &mut self,
        task: &Resource<TaskResource>,
        name: &str,
        default: &str,
    ) -> wasmtime::Result<String> {
        self.count_call()?;
        let task = self.table.get(task)?;
        Ok(task.dag.text(task.task, name, default))
    }
}

impl dags::Host for CallState {}

impl dags::HostDag for CallState {
    fn id(&mut self, dag: Resource<DagResource>) -> wasmtime::Result<String> {
        Ok(self.dag(&dag)?.dag()["dag_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    fn file(&mut self, dag: Resource<DagResource>) -> wasmtime::Result<String> {
        Ok(self.dag(&dag)?.view.file.clone())
    }

    fn source(&mut self, dag: Resource<DagResource>) -> wasmtime::Result<Option<String>> {
        Ok(self.dag(&dag)?.view.source.clone())
    }

    fn tags(&mut self, dag: Resource<DagResource>) -> wasmtime::Result<Vec<String>> {
        Ok(texts(&self.dag(&dag)?.dag()["tags"]))
    }

    fn task_ids(&mut self, dag: Resource<DagResource>) -> wasmtime::Result<Vec<String>> {
        let dag = self.dag(&dag)?;
        let count = tasks(&dag.view.serialized).len();
        Ok((0..count)
            .filter_map(|index| Some(dag.task(index)["task_id"].as_str()?.to_owned()))
            .collect())
    }

    fn task(
        &mut self,
        dag: Resource<DagResource>,
        id: String,
    ) -> wasmtime::Result<Option<Resource<TaskResource>>> {
        let dag = self.dag(&dag)?;
        let Some(&task) = dag.by_id.get(&id) else {
            return Ok(None);
        };
        Ok(Some(self.table.push(TaskResource { dag, task })?))
    }

    fn get(
        &mut self,
        dag: Resource<DagResource>,
        pointer: String,
    ) -> wasmtime::Result<Option<String>> {
        Ok(self
            .dag(&dag)?
            .dag()
            .pointer(&pointer)
            .map(ToString::to_string))
    }

    fn drop(&mut self, dag: Resource<DagResource>) -> wasmtime::Result<()> {
        self.table.delete(dag)?;
        Ok(())
    }
}

impl dags::HostTask for CallState {
    fn id(&mut self, task: Resource<TaskResource>) -> wasmtime::Result<String> {
        self.task_text(&task, "task_id", "")
    }

    fn operator(&mut self, task: Resource<TaskResource>) -> wasmtime::Result<String> {
        let module = self.task_text(&task, "_task_module", "")?;
        let class = self.task_text(&task, "task_type", "")?;
        Ok(if module.is_empty() {
            class
        } else {
            format!("{module}.{class}")
        })
    }

    fn owner(&mut self, task: Resource<TaskResource>) -> wasmtime::Result<String> {
        self.task_text(&task, "owner", "airflow")
    }

    fn pool(&mut self, task: Resource<TaskResource>) -> wasmtime::Result<String> {
        self.task_text(&task, "pool", "default_pool")
    }

    fn queue(&mut self, task: Resource<TaskResource>) -> wasmtime::Result<String> {
        self.task_text(&task, "queue", "default")
    }

    fn retries(&mut self, task: Resource<TaskResource>) -> wasmtime::Result<u32> {
        self.count_call()?;
        let task = self.table.get(&task)?;
        let retries = task
            .dag
            .attribute(task.task, "retries")
            .as_u64()
            .unwrap_or(0);
        Ok(u32::try_from(retries).unwrap_or(u32::MAX))
    }

    fn downstream(&mut self, task: Resource<TaskResource>) -> wasmtime::Result<Vec<String>> {
        self.count_call()?;
        let task = self.table.get(&task)?;
        Ok(texts(&task.dag.task(task.task)["downstream_task_ids"]))
    }

    fn get(
        &mut self,
        task: Resource<TaskResource>,
        pointer: String,
    ) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        let task = self.table.get(&task)?;
        Ok(task
            .dag
            .task(task.task)
            .pointer(&pointer)
            .map(ToString::to_string))
    }

    fn drop(&mut self, task: Resource<TaskResource>) -> wasmtime::Result<()> {
        self.table.delete(task)?;
        Ok(())
    }
}
