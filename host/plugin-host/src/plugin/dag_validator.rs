//! [`DagValidator`] over a guest.

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::component::Resource;

use super::Loaded;
use crate::bindings::guest::dag_validator as wit;
use crate::call::{Call, MOST_TEXT, cut};
use crate::imports::DagResource;
use crate::{
    DagValidator, DagView, Error, Finding, Kind, Operation, Rule, Severity, ValidationRequest,
};

const MOST_FINDINGS: usize = 1_000;
const LONGEST_CODE: usize = 64;

pub(super) struct Guest(pub(super) Arc<Loaded>);

impl Guest {
    async fn begin(&self, function: &'static str) -> Result<(Call, wit::Guest), Error> {
        let mut call = self.0.begin(function, 0).await?;
        let Some(exports) = &self.0.exports.dag_validator else {
            return Err(self.0.wrong_kind(Kind::DagValidator));
        };
        let guest = exports.load(&mut call.store, &call.instance);
        let guest = call.conclude(guest)?;
        Ok((call, guest))
    }
}

#[async_trait]
impl DagValidator for Guest {
    async fn rules(&self) -> Result<Vec<Rule>, Error> {
        let (mut call, guest) = self.begin("dag-validator.rules").await?;
        let answer = guest.call_rules(&mut call.store);
        let answer = call.limit.watch(answer).await;
        let rules = call.conclude(answer)?;
        if rules.len() > MOST_FINDINGS {
            return Err(call.misbehaved(format!("{} rules", rules.len())));
        }
        let rules = rules.into_iter().map(|rule| Rule {
            code: cut(rule.code, LONGEST_CODE),
            summary: cut(rule.summary, 1024),
            severity: rule.severity.into(),
        });
        Ok(rules.collect())
    }

    async fn validate(
        &self,
        request: ValidationRequest,
        dag: DagView,
        previous: Option<DagView>,
    ) -> Result<Vec<Finding>, Error> {
        let (mut call, guest) = self.begin("dag-validator.validate").await?;
        let dag = call.lend(dag)?;
        let previous = previous.map(|previous| call.lend(previous)).transpose()?;
        let request = wit::Request {
            operation: match request.operation {
                Operation::Create => wit::Operation::Create,
                Operation::Update => wit::Operation::Update,
                Operation::Check => wit::Operation::Check,
            },
            bundle: request.bundle,
        };
        let answer = guest.call_validate(&mut call.store, &request, dag, previous);
        let answer = call.limit.watch(answer).await;
        let findings = call.conclude_result(answer)?;
        if findings.len() > MOST_FINDINGS {
            return Err(call.misbehaved(format!(
                "{} findings; {MOST_FINDINGS} are allowed",
                findings.len()
            )));
        }
        let findings = findings.into_iter().map(|finding| Finding {
            code: cut(finding.code, LONGEST_CODE),
            severity: finding.severity.into(),
            message: cut(finding.message, MOST_TEXT),
            task_id: finding.task_id.map(|id| cut(id, MOST_TEXT)),
            line: finding.line,
            help: finding.help.map(|help| cut(help, MOST_TEXT)),
        });
        Ok(findings.collect())
    }
}

impl Call {
    /// Puts a Dag where the guest can look at it while the call lasts.
    fn lend(&mut self, dag: DagView) -> Result<Resource<DagResource>, Error> {
        let kept = self.store.data_mut().table.push(DagResource::new(dag));
        let kept = self.conclude(kept.map_err(Into::into))?;
        Ok(Resource::new_borrow(kept.rep()))
    }
}

impl From<wit::Severity> for Severity {
    fn from(severity: wit::Severity) -> Self {
        match severity {
            wit::Severity::Error => Severity::Error,
            wit::Severity::Warning => Severity::Warning,
            wit::Severity::Info => Severity::Info,
        }
    }
}
