//! The members of a period.

use std::collections::BTreeSet;

use chrono::{Datelike, TimeDelta};

use crate::python_dates::{Moment, Raised};

/// `airflow: Window`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Window {
    Time {
        span: Span,
        direction: Direction,
    },
    /// A fixed set of keys. `airflow: SegmentWindow`
    Segments(BTreeSet<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

/// Where the period lies as seen from its anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    /// It ends with the anchor.
    Backward,
}

/// What a key stands for. `airflow: PartitionMapper.expected_decoded_type`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decoded {
    Text(String),
    Moment(Moment),
}

impl Window {
    /// `airflow: Window.to_upstream`
    pub(super) fn members(&self, anchor: &Decoded) -> Result<Vec<Decoded>, Raised> {
        match (self, anchor) {
            (Self::Segments(segments), _) => {
                Ok(segments.iter().cloned().map(Decoded::Text).collect())
            }
            (Self::Time { span, direction }, Decoded::Moment(anchor)) => {
                let moments = span.members(*anchor, *direction)?;
                Ok(moments.into_iter().map(Decoded::Moment).collect())
            }
            (Self::Time { .. }, Decoded::Text(_)) => Err(Raised::of(
                "TypeError",
                "can only concatenate str (not \"datetime.timedelta\") to str",
            )),
        }
    }

    pub(super) fn is_of_moments(&self) -> bool {
        matches!(self, Self::Time { .. })
    }
}

impl Span {
    pub(super) const ALL: [Self; 6] = [
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::Year,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hour => "HourWindow",
            Self::Day => "DayWindow",
            Self::Week => "WeekWindow",
            Self::Month => "MonthWindow",
            Self::Quarter => "QuarterWindow",
            Self::Year => "YearWindow",
        }
    }

    fn members(self, anchor: Moment, direction: Direction) -> Result<Vec<Moment>, Raised> {
        match self {
            Self::Hour => steps(anchor, direction, TimeDelta::minutes(1), 60),
            Self::Day => steps(anchor, direction, TimeDelta::hours(1), 24),
            Self::Week => steps(anchor, direction, TimeDelta::days(1), 7),
            Self::Month => self.days(anchor, direction),
            Self::Quarter => self.months(anchor, direction, 3),
            Self::Year => self.months(anchor, direction, 12),
        }
    }

    /// Of the calendar month; backward those after the first of the month before, up to the anchor.
    fn days(self, anchor: Moment, direction: Direction) -> Result<Vec<Moment>, Raised> {
        self.require_first(anchor)?;
        let (first, count) = match direction {
            Direction::Forward => {
                let next = anchor.plus_months(1)?;
                (anchor, (next.local - anchor.local).num_days())
            }
            Direction::Backward => {
                let previous = anchor.plus_months(-1)?;
                let count = (anchor.local - previous.local).num_days();
                (previous.plus(TimeDelta::days(1))?, count)
            }
        };
        (0..count)
            .map(|day| first.plus(TimeDelta::days(day)))
            .collect()
    }

    fn months(
        self,
        anchor: Moment,
        direction: Direction,
        count: i32,
    ) -> Result<Vec<Moment>, Raised> {
        self.require_first(anchor)?;
        let first = match direction {
            Direction::Forward => anchor,
            Direction::Backward => anchor.plus_months(1 - count)?,
        };
        (0..count).map(|month| first.plus_months(month)).collect()
    }

    /// `airflow: _require_day_one`
    fn require_first(self, anchor: Moment) -> Result<(), Raised> {
        if anchor.local.day() == 1 {
            return Ok(());
        }
        Err(Raised::value_error(format!(
            "{} expects a period start on day 1 of the month, got {}. The paired upstream mapper's \
             decode_downstream must normalise to day 1.",
            self.name(),
            anchor.isoformat()
        )))
    }
}

/// `airflow: _build_directional_steps`
fn steps(
    anchor: Moment,
    direction: Direction,
    step: TimeDelta,
    count: i32,
) -> Result<Vec<Moment>, Raised> {
    let first = match direction {
        Direction::Forward => anchor,
        Direction::Backward => anchor.plus(step * (1 - count))?,
    };
    (0..count).map(|i| first.plus(step * i)).collect()
}
