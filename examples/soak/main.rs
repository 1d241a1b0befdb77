//! Load against the layer, with marks that it has to keep.
//!
//! ```sh
//! cargo run --release --example soak --features axum,testing             # about a quarter of an hour
//! cargo run --example soak --features axum,testing -- --short            # about a minute, for CI
//! cargo run --release --example soak --features axum,testing -- --only L3
//! ```
//!
//! Everything stays on this machine. Each scenario has a process of its own, with the load, the layer and the mock in
//! it. Marks of time are for an idle machine: with `--short`, they are shown, but do not make the run fail. Needs
//! Linux: memory and file descriptors are read from `/proc`.

mod browser;
mod floods;
mod load;
mod memory;
mod outages;
mod refreshes;
mod report;
mod stage;

use std::{
    env, io,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use report::{Check, Report};

fn main() -> ExitCode {
    match Scale::from_args(env::args().skip(1)).and_then(|scale| measure(&scale)) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(scale: &Scale) -> Result<ExitCode, String> {
    let mut report = Report::default();
    for id in SCENARIOS.into_iter().filter(|id| scale.wants(id)) {
        if scale.is_child {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            report.add(id, runtime.map_err(|error| error.to_string())?.block_on(run(id, scale)));
        } else {
            let start = Instant::now();
            let rows = in_a_process_of_its_own(id, scale).map_err(|error| format!("{id}: {error}"))?;
            report.read(&rows).ok_or_else(|| format!("{id} has come to an end before its time"))?;
            eprintln!("{id} took {:.0?}", start.elapsed());
        }
    }
    if scale.is_child {
        report.write();
        return Ok(ExitCode::SUCCESS);
    }
    report.print();
    Ok(if report.has_failed(scale.is_short) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Memory that one scenario has given back to the allocator would hide the growth of the next one.
fn in_a_process_of_its_own(id: &str, scale: &Scale) -> io::Result<String> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--child", "--only", id]).args(scale.is_short.then_some("--short"));
    let output = command.stderr(Stdio::inherit()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn run(id: &str, scale: &Scale) -> (String, Vec<Check>) {
    match id {
        "L1" => refreshes::burst(scale).await,
        "L1b" => refreshes::hang_ups(scale).await,
        "L2" => floods::unknown_keys(scale).await,
        "L3" => outages::hung_upstream(scale).await,
        "L3b" => outages::hung_upstream_before_a_narrow_service(scale).await,
        "L4" => floods::rapid_resets(scale).await,
        "L5" => floods::slow_bodies(scale).await,
        "L6" => refreshes::faulty_upstream(scale).await,
        "M1" => memory::distinct_tokens(scale).await,
        _ => memory::stampede(scale).await,
    }
}

/// How much of everything.
struct Scale {
    is_short: bool,
    is_child: bool,
    only: Option<String>,
}

impl Scale {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut scale = Self { is_short: false, is_child: false, only: None };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--child" => scale.is_child = true,
                "--short" => scale.is_short = true,
                "--only" => scale.only = args.next(),
                other => return Err(format!("{other}: the options are --short and --only <scenario>")),
            }
        }
        match &scale.only {
            Some(only) if !SCENARIOS.contains(&only.as_str()) => Err(format!("{only} is none of {SCENARIOS:?}")),
            _ => Ok(scale),
        }
    }

    fn wants(&self, id: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == id)
    }

    /// Chooses between the short form's value and the long one's.
    fn pick<T>(&self, short: T, long: T) -> T {
        if self.is_short { short } else { long }
    }
}

const SCENARIOS: [&str; 10] = ["L1", "L1b", "L2", "L3", "L3b", "L4", "L5", "L6", "M1", "X7"];
