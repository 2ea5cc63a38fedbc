//! Python's slices.

/// `[start:stop:step]`; a step of 0 counts as left out, as in Airflow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slice {
    pub(super) start: Option<i64>,
    pub(super) stop: Option<i64>,
    pub(super) step: Option<i64>,
}

impl Slice {
    pub(super) fn of<T>(self, items: Vec<T>) -> Vec<T> {
        let len = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let step = self.step.filter(|step| *step != 0).unwrap_or(1);
        let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
        let bound = |given: Option<i64>, otherwise: i64| match given {
            None => otherwise,
            Some(at) if at < 0 => at.saturating_add(len).clamp(low, high),
            Some(at) => at.clamp(low, high),
        };
        let (start, stop) = if step > 0 {
            (bound(self.start, 0), bound(self.stop, len))
        } else {
            (bound(self.start, len - 1), bound(self.stop, -1))
        };
        let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
        let mut chosen = Vec::new();
        let mut at = start;
        while (step > 0 && at < stop) || (step < 0 && at > stop) {
            chosen.extend(
                usize::try_from(at)
                    .ok()
                    .and_then(|at| items.get_mut(at)?.take()),
            );
            at = at.saturating_add(step);
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::Slice;

    #[test]
    fn slices_are_pythons() {
        // Each answer is what `list(range(5))[start:stop:step]` is in Python.
        let cases: [(Option<i64>, Option<i64>, Option<i64>, &[i32]); 14] = [
            (None, None, None, &[0, 1, 2, 3, 4]),
            (Some(1), Some(3), None, &[1, 2]),
            (Some(-2), None, None, &[3, 4]),
            (None, Some(-2), None, &[0, 1, 2]),
            (Some(-4), Some(-1), None, &[1, 2, 3]),
            (Some(1), Some(-1), Some(2), &[1, 3]),
            (Some(-3), Some(4), None, &[2, 3]),
            (None, None, Some(-1), &[4, 3, 2, 1, 0]),
            (Some(3), Some(0), Some(-2), &[3, 1]),
            (None, Some(1), Some(-1), &[4, 3, 2]),
            (Some(-2), Some(-9), Some(-1), &[3, 2, 1, 0]),
            (Some(9), Some(2), None, &[]),
            (Some(4), Some(-9), Some(-4), &[4, 0]),
            (None, None, Some(0), &[0, 1, 2, 3, 4]),
        ];
        for (start, stop, step, expected) in cases {
            let chosen = Slice { start, stop, step }.of(vec![0, 1, 2, 3, 4]);
            assert_eq!(chosen, expected, "[{start:?}:{stop:?}:{step:?}]");
        }
        let backwards = Slice {
            step: Some(-1),
            ..Slice::default()
        };
        assert!(backwards.of(Vec::<i32>::new()).is_empty());
    }
}
