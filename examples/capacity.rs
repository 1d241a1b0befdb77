//! How large a store do shared refreshes need? A formula and a simulation, side by side.
//!
//! ```sh
//! cargo run --example capacity
//! cargo run --example capacity -- --sessions 5000000 --replicas 20 --jwt-minutes 60
//! ```
//!
//! The simulation follows each refresh of a part of the sessions, command by command, and all logouts. It is seeded:
//! two runs have the same result. [`Model`] has the parameters with their defaults.

use std::{collections::BinaryHeap, env, process::ExitCode};

fn main() -> ExitCode {
    let model = match Model::from_arguments(env::args().skip(1)) {
        Ok(model) => model,
        Err(why) => {
            eprintln!("error: {why}\n\nparameters, with their defaults:");
            Model::default().list().iter().for_each(|(name, value)| eprintln!("    --{name} {value}"));
            return ExitCode::FAILURE;
        }
    };
    let parameters = model.list().map(|(name, value)| format!("--{name} {value}"));
    println!("{}\n", parameters.join(" "));
    let columns = [model.formula(), Simulation::new(&model).run()].map(|load| model.rows(&load));
    println!("{:46}{:>12}{:>12}", "", "formula", "simulation");
    for ((name, formula), (_, simulated)) in columns[0].iter().zip(&columns[1]) {
        println!("{name:46}{formula:>12}{simulated:>12}");
    }
    let sessions = model.sessions_at(0.5);
    let refreshes = grouped(sessions / model.jwt_seconds());
    println!("\none core is half busy with {:.1} million sessions, {refreshes} refreshes/s", sessions / 1e6);
    ExitCode::SUCCESS
}

/// The parameters. All are numbers.
#[derive(Clone, Debug)]
struct Model {
    /// Sessions whose browsers are active all the time.
    sessions: f64,
    replicas: f64,
    /// The lifetime of a JWT.
    jwt_minutes: f64,
    /// After how many hours the user of a session signs out. Another one signs in.
    session_hours: f64,
    /// The requests that a browser sends when its JWT has expired, and the time within which they arrive.
    burst: f64,
    burst_ms: f64,
    /// The mean time that Crossmint takes. It is spread evenly between a half and one and a half of it.
    crossmint_ms: f64,
    /// A round trip to the store.
    round_trip_ms: f64,
    /// The percentage of refreshes whose responses all get lost, so that their record is kept for an hour.
    undelivered_percent: f64,
    /// `rotation_grace`.
    grace_seconds: f64,
    /// Crossmint's answer, padded and encrypted, and what Redis 7.0 needs besides for each record, as measured.
    answer_bytes: f64,
    record_bytes: f64,
    /// The processor time of a command, with its share of the sockets, and of a publication for each of its
    /// subscribers.
    ///
    /// Measured with Redis 7.0 on one core of a virtual Xeon: 11 us for a look that finds nothing, 24 us for one that
    /// returns an answer, 29 us for a finish. The scripts alone take about 6 us.
    command_us: f64,
    subscriber_us: f64,
    /// The simulation follows one of this many sessions.
    scale: f64,
    seed: f64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            sessions: 1e6,
            replicas: 50.0,
            jwt_minutes: 15.0,
            session_hours: 8.0,
            burst: 3.0,
            burst_ms: 20.0,
            crossmint_ms: 150.0,
            round_trip_ms: 0.5,
            undelivered_percent: 1.0,
            grace_seconds: 30.0,
            answer_bytes: 2588.0,
            record_bytes: 1400.0,
            command_us: 16.0,
            subscriber_us: 1.0,
            scale: 100.0,
            seed: 1.0,
        }
    }
}

impl Model {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut model = Self::default();
        while let Some(argument) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{argument} has no value"))?;
            let number: f64 = value.parse().map_err(|_| format!("{argument} {value}: that is not a number"))?;
            let mut parameters = model.parameters();
            let named = |(name, _): &&mut (&str, _)| argument.strip_prefix("--") == Some(*name);
            let (_, parameter) = parameters.iter_mut().find(named).ok_or_else(|| format!("{argument} is unknown"))?;
            **parameter = number;
        }
        let at_least_one = [model.sessions, model.replicas, model.burst, model.scale, model.jwt_minutes];
        if at_least_one.iter().any(|value| !(1.0..=1e9).contains(value)) {
            return Err("sessions, replicas, burst, scale and jwt-minutes are at least 1".to_owned());
        }
        let others = model.list();
        match others.iter().find(|(_, value)| !(0.0..=1e9).contains(value)) {
            Some((name, value)) => Err(format!("--{name} {value} is out of range")),
            None => Ok(model),
        }
    }

    fn parameters(&mut self) -> [(&'static str, &mut f64); 16] {
        [
            ("sessions", &mut self.sessions),
            ("replicas", &mut self.replicas),
            ("jwt-minutes", &mut self.jwt_minutes),
            ("session-hours", &mut self.session_hours),
            ("burst", &mut self.burst),
            ("burst-ms", &mut self.burst_ms),
            ("crossmint-ms", &mut self.crossmint_ms),
            ("round-trip-ms", &mut self.round_trip_ms),
            ("undelivered-percent", &mut self.undelivered_percent),
            ("grace-seconds", &mut self.grace_seconds),
            ("answer-bytes", &mut self.answer_bytes),
            ("record-bytes", &mut self.record_bytes),
            ("command-us", &mut self.command_us),
            ("subscriber-us", &mut self.subscriber_us),
            ("scale", &mut self.scale),
            ("seed", &mut self.seed),
        ]
    }

    fn list(&self) -> [(&'static str, f64); 16] {
        self.clone().parameters().map(|(name, value)| (name, *value))
    }

    fn jwt_seconds(&self) -> f64 {
        self.jwt_minutes * 60.0
    }

    fn logouts(&self) -> f64 {
        self.sessions / (self.session_hours * 3600.0)
    }

    /// What is expected, without the moments at which two replicas look before either claims.
    fn formula(&self) -> Load {
        let refreshes = self.sessions / self.jwt_seconds();
        // The requests of a burst that meet at one replica share a look.
        let replicas = self.replicas * (1.0 - (1.0 - 1.0 / self.replicas).powf(self.burst));
        let followers = refreshes * (replicas - 1.0);
        // A follower looks when it arrives, while it waits, and when it is woken.
        let chance = |pause: f64| (1.5 - pause / self.crossmint_ms).clamp(0.0, 1.0);
        let polls: f64 = polls().take_while(|pause| *pause < 1.5 * self.crossmint_ms).map(chance).sum();
        let delivered = 1.0 - self.undelivered_percent / 100.0;
        let logouts = self.logouts();
        // A replica reads the log, waits for the next logout or for half a second, and pauses.
        let wait = if logouts > 0.0 { (1.0 - (-LOG_POLL * logouts).exp()) / logouts } else { LOG_POLL };
        let lifetime = delivered * (self.grace_seconds + self.crossmint_ms / 1000.0) + (1.0 - delivered) * UNDELIVERED;
        Load {
            refreshes,
            looks_with_answer: followers,
            looks_without: refreshes + followers * (1.0 + polls),
            claims: refreshes,
            finishes: refreshes,
            delivered: refreshes * replicas * delivered,
            logouts,
            log_reads: self.replicas / (wait + LOG_PAUSE),
            records: refreshes * lifetime,
        }
    }

    fn rows(&self, load: &Load) -> Vec<(&'static str, String)> {
        let bytes = load.records * (self.answer_bytes + self.record_bytes)
            + (load.logouts * LOG_LIFE).min(LOG_LENGTH) * LOG_ENTRY_BYTES;
        vec![
            ("refreshes of sessions, per second", grouped(load.refreshes)),
            ("logouts, per second", grouped(load.logouts)),
            ("commands, per second", grouped(load.commands())),
            ("    look", grouped(load.looks_with_answer + load.looks_without)),
            ("    claim", grouped(load.claims)),
            ("    finish", grouped(load.finishes)),
            ("    delivered", grouped(load.delivered)),
            ("    end, and append to the log of logouts", grouped(2.0 * load.logouts)),
            ("    read the log of logouts", grouped(load.log_reads)),
            ("commands per refresh", format!("{:.1}", load.commands() / load.refreshes)),
            ("publications, per second", grouped(load.publications())),
            ("    times their subscribers", grouped(load.publications() * self.replicas)),
            ("processor time of one core, %", format!("{:.1}", 100.0 * self.busy(load))),
            ("    of which publications, %", format!("{:.1}", 100.0 * self.busy_with_publications(load))),
            ("records", grouped(load.records)),
            ("memory, MiB", grouped(bytes / f64::from(1 << 20))),
            ("received, Mbit/s", grouped(self.received(load) * 8.0 / 1e6)),
            ("sent, Mbit/s", grouped(self.sent(load) * 8.0 / 1e6)),
        ]
    }

    /// The share of one core that the store needs.
    fn busy(&self, load: &Load) -> f64 {
        load.commands() * self.command_us / 1e6 + self.busy_with_publications(load)
    }

    fn busy_with_publications(&self, load: &Load) -> f64 {
        load.publications() * self.replicas * self.subscriber_us / 1e6
    }

    /// Bytes per second, without TCP and TLS.
    fn received(&self, load: &Load) -> f64 {
        load.commands() * COMMAND_BYTES + load.finishes * self.answer_bytes
    }

    fn sent(&self, load: &Load) -> f64 {
        load.commands() * REPLY_BYTES
            + load.looks_with_answer * self.answer_bytes
            + load.publications() * self.replicas * PUSH_BYTES
            + load.logouts * self.replicas * LOG_REPLY_BYTES
    }

    /// How many sessions keep one core busy for this share of the time.
    fn sessions_at(&self, share: f64) -> f64 {
        let (mut enough, mut too_many) = (0.0, 1e12);
        while too_many - enough > 1000.0 {
            let sessions = (enough + too_many) / 2.0;
            let model = Self { sessions, ..self.clone() };
            if model.busy(&model.formula()) < share { enough = sessions } else { too_many = sessions }
        }
        enough
    }
}

/// What the store has to do, per second.
#[derive(Clone, Debug, Default)]
struct Load {
    refreshes: f64,
    looks_with_answer: f64,
    looks_without: f64,
    claims: f64,
    finishes: f64,
    delivered: f64,
    logouts: f64,
    log_reads: f64,
    /// How many there are, on average.
    records: f64,
}

impl Load {
    fn commands(&self) -> f64 {
        let refreshes = self.looks_with_answer + self.looks_without + self.claims + self.finishes + self.delivered;
        refreshes + 2.0 * self.logouts + self.log_reads
    }

    /// One for each finish; one for a logout's record, and one for its entry in the log.
    fn publications(&self) -> f64 {
        self.finishes + 2.0 * self.logouts
    }

    fn add(&mut self, other: &Self, times: f64) {
        for (sum, value) in [
            (&mut self.refreshes, other.refreshes),
            (&mut self.looks_with_answer, other.looks_with_answer),
            (&mut self.looks_without, other.looks_without),
            (&mut self.claims, other.claims),
            (&mut self.finishes, other.finishes),
            (&mut self.delivered, other.delivered),
            (&mut self.logouts, other.logouts),
            (&mut self.log_reads, other.log_reads),
            (&mut self.records, other.records),
        ] {
            *sum += value * times;
        }
    }
}

/// An hour of refreshes and logouts. Times are in seconds.
struct Simulation<'a> {
    model: &'a Model,
    random: Random,
    load: Load,
}

impl<'a> Simulation<'a> {
    fn new(model: &'a Model) -> Self {
        Self { model, random: Random(model.seed as u64), load: Load::default() }
    }

    fn run(mut self) -> Load {
        let mut load = Load::default();
        for _ in 0..(self.model.sessions / self.model.scale).round() as u64 {
            let mut at = -WARM_UP + self.random.up_to(self.model.jwt_seconds());
            while at < HOUR {
                self.refresh(at);
                at += self.model.jwt_seconds();
            }
        }
        load.add(&self.load, self.model.scale / HOUR);
        self.load = Load::default();
        self.log();
        load.add(&self.load, 1.0 / HOUR);
        load
    }

    /// One refresh: every request of a burst, until it has an answer.
    fn refresh(&mut self, start: f64) {
        let counts = start >= 0.0;
        let (half_trip, trip) = (self.model.round_trip_ms / 2e3, self.model.round_trip_ms / 1e3);
        // The first request at each replica. Later ones join it.
        let mut arrivals: Vec<(usize, f64)> = Vec::new();
        for _ in 0..self.model.burst.round() as u64 {
            let replica = self.random.up_to(self.model.replicas) as usize;
            let at = start + self.random.up_to(self.model.burst_ms / 1e3);
            match arrivals.iter_mut().find(|(other, _)| *other == replica) {
                Some((_, first)) => *first = first.min(at),
                None => arrivals.push((replica, at)),
            }
        }
        let mut load = Load { refreshes: 1.0, ..Load::default() };
        let mut events: BinaryHeap<_> = arrivals.iter().map(|(_, at)| Event { at: *at, step: Step::Look(0) }).collect();
        let is_delivered = self.random.up_to(100.0) >= self.model.undelivered_percent;
        let (mut claimed_at, mut finished_at) = (None, None);
        let mut expires_at = f64::INFINITY;
        while let Some(Event { at, step }) = events.pop() {
            let executed_at = at + half_trip;
            match step {
                Step::Look(polls_before) => {
                    if finished_at.is_some_and(|finished_at| finished_at <= executed_at) {
                        load.looks_with_answer += 1.0;
                        events.push(Event { at: at + trip, step: Step::Respond });
                        continue;
                    }
                    load.looks_without += 1.0;
                    if claimed_at.is_none_or(|claimed_at| executed_at < claimed_at) {
                        events.push(Event { at: at + trip, step: Step::Claim });
                        continue;
                    }
                    // Until it is woken, or for a pause.
                    let pause = polls().nth(polls_before).unwrap_or_default() / 1e3;
                    let earlier = polls_before.checked_sub(1).and_then(|number| polls().nth(number));
                    let poll_at = at + trip + pause - earlier.unwrap_or_default() / 1e3;
                    events.push(Event { at: poll_at, step: Step::Wake(polls_before + 1) });
                }
                // It was woken earlier if there was an answer.
                Step::Wake(polls) => {
                    let woken_at =
                        finished_at.map(|finished_at| finished_at + half_trip).filter(|woken_at| *woken_at <= at);
                    let (at, polls) = woken_at.map_or((at, polls), |woken_at| (woken_at, usize::MAX));
                    events.push(Event { at, step: Step::Look(polls.min(MAX_POLLS)) });
                }
                Step::Claim => {
                    load.claims += 1.0;
                    if claimed_at.is_some() {
                        events.push(Event { at: at + trip, step: Step::Look(0) });
                        continue;
                    }
                    claimed_at = Some(executed_at);
                    let call = self.model.crossmint_ms / 1e3 * (0.5 + self.random.up_to(1.0));
                    // Looks before it are executed first.
                    finished_at = Some(at + trip + call + half_trip);
                    load.finishes += 1.0;
                    events.push(Event { at: at + trip + call + trip, step: Step::Respond });
                }
                Step::Respond if is_delivered => {
                    load.delivered += 1.0;
                    expires_at = executed_at.min(expires_at);
                }
                Step::Respond => {}
            }
        }
        if counts {
            self.load.add(&load, 1.0);
        }
        if let Some(claimed_at) = claimed_at {
            let end = if is_delivered { expires_at + self.model.grace_seconds } else { claimed_at + UNDELIVERED };
            self.load.records += (end.min(HOUR) - claimed_at.max(0.0)).max(0.0);
        }
    }

    /// All logouts, and each replica that reads their log.
    fn log(&mut self) {
        let mut logouts = Vec::new();
        let mut at = 0.0;
        while self.model.logouts() > 0.0 {
            at -= (1.0 - self.random.up_to(1.0)).ln() / self.model.logouts();
            if at >= HOUR {
                break;
            }
            logouts.push(at);
        }
        self.load.logouts = logouts.len() as f64;
        for _ in 0..self.model.replicas.round() as u64 {
            let mut at = self.random.up_to(LOG_POLL);
            let mut next = 0;
            while at < HOUR {
                self.load.log_reads += 1.0;
                while logouts.get(next).is_some_and(|logout| *logout <= at) {
                    next += 1;
                }
                let woken_at = logouts.get(next).copied().unwrap_or(HOUR);
                at = woken_at.min(at + LOG_POLL) + LOG_PAUSE;
            }
        }
    }
}

/// What a replica does next about one refresh. The earliest is the greatest, for the heap.
struct Event {
    at: f64,
    step: Step,
}

enum Step {
    /// Sends a look, after this many pauses.
    Look(usize),
    Claim,
    /// Ends a pause, after this many.
    Wake(usize),
    /// Has sent the response.
    Respond,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.total_cmp(&self.at)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn up_to(&mut self, limit: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 * limit
    }
}

/// When a replica that waits looks again, in milliseconds since its first look: pauses of 100, 200, 250, 250, ...
fn polls() -> impl Iterator<Item = f64> {
    (0..).map(|number| if number < 2 { [100.0, 300.0][number] } else { 300.0 + 250.0 * (number - 1) as f64 })
}

fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// Seconds.
const HOUR: f64 = 3600.0;
/// Records of the hour before are still there.
const WARM_UP: f64 = 3600.0;
const UNDELIVERED: f64 = 3600.0;
/// How long a replica waits for a logout before it reads the log, and how long it waits for more.
const LOG_POLL: f64 = 0.5;
const LOG_PAUSE: f64 = 0.05;
/// Enough for a wait of 12 s, beyond which requests time out.
const MAX_POLLS: usize = 50;

/// For how long the log lives after its last entry, how many it keeps, and how large each is in memory and in a reply.
const LOG_LIFE: f64 = 86_400.0;
const LOG_LENGTH: f64 = 65_536.0;
const LOG_ENTRY_BYTES: f64 = 40.0;
const LOG_REPLY_BYTES: f64 = 100.0;

/// What a command, its reply and a push message have besides the answer.
const COMMAND_BYTES: f64 = 250.0;
const REPLY_BYTES: f64 = 80.0;
const PUSH_BYTES: f64 = 130.0;
