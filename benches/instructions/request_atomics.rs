//! How many atomic read-modify-writes a request with a known session takes, and where: each of them takes a cache line
//! from the other processors.
//!
//! Callgrind has counted them as bus events while `request` ran: every instruction with a `lock` prefix, and every
//! `xchg` with memory. This reads what it wrote. Above a limit, it fails. See `benches/README.md`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    if !cfg!(target_arch = "x86_64") {
        println!("Atomic read-modify-writes are not counted: the limits are those of x86-64.");
        return ExitCode::SUCCESS;
    }
    let planted = Counts::read("planted.three");
    assert_eq!(planted.total(), CONTROL, "the planted atomics are not counted: {planted:?}");

    let direct = Counts::read("warm.warm");
    let router = Counts::read("router.ours").without(Counts::read("router.idle"));
    let passed = [
        direct.show("the layer around a service", DIRECT),
        router.show("what the layer adds to axum's router", ROUTER),
    ];
    if passed.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Executed atomic read-modify-writes by place.
#[derive(Debug, Default)]
struct Counts(BTreeMap<String, i64>);

impl Counts {
    /// Reads what callgrind wrote of a bench: a file for each thread.
    fn read(bench: &str) -> Self {
        let program = env::current_exe().unwrap();
        let folder = program.ancestors().nth(3).unwrap().join("gungraun/instructions/request/requests").join(bench);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let files = files.map(|file| file.unwrap().path()).filter(|file| file.extension() == Some(OsStr::new("out")));
        let mut counts = Self::default();
        for file in files {
            let modified = |path: &Path| path.metadata().unwrap().modified().unwrap();
            assert!(modified(&file) > modified(&program), "{} is old: run the bench `request`", file.display());
            counts.add(&fs::read_to_string(file).unwrap());
        }
        // Even the idle layer's request has some: the count of axum's `Router`.
        assert_ne!(counts.total(), 0, "nothing is counted in {}", folder.display());
        counts
    }

    /// Adds the counts of a file of callgrind, whose names and positions are not compressed.
    fn add(&mut self, profile: &str) {
        let (mut column, mut object, mut function, mut is_call) = (None, "", "", false);
        let (mut sum, mut total) = (0, None);
        for line in profile.lines() {
            // Zeros at the end of a line are left out.
            let count = |skipped| {
                let column = column.expect("`--collect-bus=yes`") + skipped;
                line.split_whitespace().nth(column).map_or(0, |count| count.parse().unwrap())
            };
            match line.split_once(['=', ':']) {
                Some(("events", events)) => column = events.split_whitespace().position(|event| event == "Ge"),
                Some(("ob", name)) => object = name,
                Some(("fn", name)) => function = name,
                // The next line is what the callee has executed, which is counted there.
                Some(("calls", _)) => is_call = true,
                Some(("totals", _)) => total = Some(count(1)),
                // Address, line, and the counts of one instruction.
                None if line.starts_with("0x") => {
                    let count = if std::mem::take(&mut is_call) { 0 } else { count(2) };
                    if count > 0 {
                        sum += count;
                        let address = line.split_whitespace().next().unwrap();
                        *self.0.entry(place(object, address, function)).or_default() += count;
                    }
                }
                _ => {}
            }
        }
        assert_eq!(Some(sum), total, "callgrind's total is not the sum of its lines");
    }

    fn without(mut self, baseline: Self) -> Self {
        for (place, count) in baseline.0 {
            *self.0.entry(place).or_default() -= count;
        }
        self.0.retain(|_, count| *count != 0);
        self
    }

    fn total(&self) -> i64 {
        self.0.values().sum()
    }

    /// Prints the table, and returns whether the total is within the limit, and no memory is written to that other
    /// threads write to for other sessions.
    fn show(&self, what: &str, limit: i64) -> bool {
        let total = self.total();
        println!("\natomic read-modify-writes, {what}: {total}, limit {limit}");
        let mut shared = 0;
        for (place, count) in &self.0 {
            let known = WHOSE.iter().find(|(parts, _)| parts.iter().all(|part| place.contains(part)));
            let whose = known.map_or("shared", |(_, whose)| whose);
            shared += if known.is_none() { (*count).max(0) } else { 0 };
            println!("{count:>4}  {whose:<12}  {place}");
        }
        let passed = total <= limit && shared == 0;
        if !passed {
            println!("FAILED: {total} of at most {limit}, {shared} of them on lines that all threads share");
        }
        passed
    }
}

/// Names the function that an instruction belongs to, and the one that it was inlined from.
fn place(object: &str, address: &str, function: &str) -> String {
    let lines =
        Command::new("addr2line").args(["-ifC", "-e", object, address]).output().expect("addr2line of binutils");
    let lines = String::from_utf8(lines.stdout).unwrap();
    let lines: Vec<_> = lines.lines().collect();
    // The innermost are those of the atomic itself.
    let frame = lines.chunks_exact(2).find(|frame| !frame[1].contains("/sync/atomic.rs:"));
    match frame {
        Some([inlined, line]) if ![function, "??"].contains(inlined) => {
            let line = line.rmatch_indices('/').nth(1).map_or(*line, |(at, _)| &line[at + 1..]);
            format!("{inlined} ({line}) in {function}")
        }
        _ => function.to_owned(),
    }
}

/// All of a request that the layer's own service answers.
const DIRECT: i64 = 5;
/// What the layer adds to axum's `Router`, in comparison with a layer that does nothing.
const ROUTER: i64 = 6;
/// What `planted` executes.
const CONTROL: i64 = 3;

/// Whose memory an atomic is in, by parts of its place.
const WHOSE: &[(&[&str], &str)] = &[
    (&["session::Inner"], "the session"),
    // The `Cookie` header is dropped.
    (&["bytes::shared_drop"], "the request"),
    (&["per_thread::PerThreadArc"], "the thread"),
    (&["per_thread::Padded"], "the thread"),
    // The hits of the cache.
    (&["add (stats/mod.rs:", "TokenCache::get"], "the thread"),
    // The table of the cache: when a thread stops reading.
    (&["leave (raw/collector.rs:"], "the thread"),
];
