//! The table at the end.

use std::{fmt::Display, time::Duration};

/// One figure against its mark.
pub(crate) struct Check {
    measured: String,
    mark: String,
    holds: bool,
    is_time: bool,
}

impl Check {
    /// Something that is counted: it holds on any machine.
    pub(crate) fn count<T: Copy + PartialOrd + Display>(what: &str, measured: T, mark: Mark<T>) -> Self {
        let (holds, text) = match &mark {
            Mark::Exactly(mark) => (measured == *mark, mark.to_string()),
            Mark::AtMost(mark) => (measured <= *mark, format!("<= {mark}")),
        };
        Self { measured: format!("{what}: {measured}"), mark: text, holds, is_time: false }
    }

    /// A duration, which is longer on a busy machine.
    pub(crate) fn time(what: &str, measured: Duration, mark: Duration) -> Self {
        let (text, holds) = (format!("< {mark:?}"), measured < mark);
        Self { measured: format!("{what}: {measured:.1?}"), mark: text, holds, is_time: true }
    }

    /// A 99th percentile against the one without the load, in the same run.
    pub(crate) fn p99_ratio(what: &str, loaded: Duration, baseline: Duration, mark: f64) -> Self {
        let ratio = loaded.as_secs_f64() / baseline.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            measured: format!("{what}: p99 {loaded:.1?} to {baseline:.1?}: x {ratio:.2}"),
            mark: format!("<= x {mark}"),
            holds: ratio <= mark,
            is_time: true,
        }
    }

    /// A figure without a mark.
    pub(crate) fn note(measured: String) -> Self {
        Self { measured, mark: String::new(), holds: true, is_time: true }
    }

    fn verdict(&self) -> &'static str {
        match self {
            Self { mark, .. } if mark.is_empty() => "",
            Self { holds: true, .. } => "PASS",
            Self { is_time: true, .. } => "FAIL (time)",
            Self { .. } => "FAIL",
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Mark<T> {
    Exactly(T),
    AtMost(T),
}

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<[String; 5]>,
    counts_failed: bool,
    times_failed: bool,
}

impl Report {
    pub(crate) fn add(&mut self, id: &str, (scenario, checks): (String, Vec<Check>)) {
        let (mut id, mut scenario) = (id.to_owned(), scenario);
        for check in checks {
            *(if check.is_time { &mut self.times_failed } else { &mut self.counts_failed }) |= !check.holds;
            let verdict = check.verdict().to_owned();
            self.rows.push([
                std::mem::take(&mut id),
                std::mem::take(&mut scenario),
                check.measured,
                check.mark,
                verdict,
            ]);
        }
    }

    /// Writes what [`read`](Self::read) reads.
    pub(crate) fn write(&self) {
        println!("{}\t{}", self.counts_failed, self.times_failed);
        self.rows.iter().for_each(|row| println!("{}", row.join("\t")));
    }

    /// Adds what another process has written.
    pub(crate) fn read(&mut self, written: &str) -> Option<()> {
        let mut lines = written.lines();
        let (counts_failed, times_failed) = lines.next()?.split_once('\t')?;
        self.counts_failed |= counts_failed == "true";
        self.times_failed |= times_failed == "true";
        for line in lines {
            let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
            self.rows.push(cells.try_into().ok()?);
        }
        Some(())
    }

    /// Prints a Markdown table.
    pub(crate) fn print(&self) {
        let head = ["id", "scenario", "measured", "mark", ""].map(str::to_owned);
        let width = |column: usize| self.rows.iter().chain([&head]).map(|row| row[column].len()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        let line = |row: &[String; 5]| {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("| {} |", cells.join(" | "));
        };
        line(&head);
        line(&widths.map(|width| "-".repeat(width)));
        self.rows.iter().for_each(line);
    }

    pub(crate) fn has_failed(&self, is_short: bool) -> bool {
        self.counts_failed || (self.times_failed && !is_short)
    }
}
