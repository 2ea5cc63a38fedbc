//! The version of the API that a request asks for, by date.

use chrono::NaiveDate;
use http::HeaderMap;
use serde_json::json;

use crate::problem::Problem;

pub(crate) const HEADER: &str = "airflow-api-version";

/// The contracts that are served, oldest first. A date in between, or later, means the newest one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// 2026-04-06, of Task SDK 1.2.
    April2026,
    /// 2026-06-30, of Task SDK 1.3.
    June2026,
}

impl Version {
    /// # Errors
    /// 404 for a version before the oldest, 422 for what is no date; as Airflow.
    pub(crate) fn requested(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(header) = headers.get(HEADER) else {
            return Ok(Self::June2026);
        };
        let text = header.to_str().unwrap_or_default();
        let Ok(date) = text.parse::<NaiveDate>() else {
            return Err(Problem::invalid(vec![json!({
                "type": "date_from_datetime_parsing",
                "loc": ["header", "Airflow-API-Version"],
                "msg": "Input should be a valid date or datetime, input is too short",
                "input": text,
                "ctx": {"error": "input is too short"},
            })]));
        };
        match date {
            date if date >= day(2026, 6, 30) => Ok(Self::June2026),
            date if date >= day(2026, 4, 6) => Ok(Self::April2026),
            _ => Err(Problem::not_found_path()),
        }
    }

    /// Whether answers have the fields that came with 2026-06-30.
    pub(crate) const fn has_june_fields(self) -> bool {
        match self {
            Self::April2026 => false,
            Self::June2026 => true,
        }
    }
}

fn day(year: i32, month: u32, day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(year, month, day).expect("a day of the calendar")
}
