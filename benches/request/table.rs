//! The printed table.

use std::time::Duration;

use crate::{
    JWTS, SESSIONS,
    case::Turns,
    plain::{COUNTS, SIZES, foreign_cookies, size_of_header},
};

pub(crate) fn print(turns: &Turns, waiters: [Duration; 2], replays: [Duration; 2]) {
    row("medians of turns in this run: what", "found", "goal");
    routed(turns);
    refreshes(turns, waiters, replays);
    println!();
    row("as measured for 0.1, without axum's box: what", "found", "goal then");
    plain(turns);
}

fn routed(turns: &Turns) {
    let idle = "Router, 752, idle";
    row("limit: one RSA-2048 verification", nanos(time(turns, "limit")), "");
    row("axum's router with an idle layer", nanos(time(turns, idle)), "");
    for (place, jwt) in ["Router", "ServiceBuilder"].into_iter().flat_map(|place| JWTS.map(|jwt| (place, jwt))) {
        let name = format!("{place}, {jwt}");
        let idle = format!("{name}, idle");
        row(format!("a known session adds: {place}, JWT of {jwt} bytes"), nanos(added(turns, &name, &idle)), "");
        let share = turns.median(["limit", &name, &idle], |[limit, known, idle]| limit / (known - idle));
        let goal = if name == "Router, 752" { ">= 60" } else { "" };
        row("  limit / that", format!("{share:.1}"), goal);
    }
    row("a new JWT adds, besides its verification", nanos(added(turns, "new JWT", "new JWT floor")), "");
    row("  (limit + that) / limit", over_limit(turns, "new JWT"), "<= 1.08");
    row("by hand adds", nanos(added(turns, "routed by hand", idle)), "");
    let times =
        turns.median(["routed by hand", "Router, 752", idle], |[hand, known, idle]| (hand - idle) / (known - idle));
    row("  that / a known session adds", format!("{times:.1}"), ">= 75");
    for (name, goal) in [("idle layer", ""), ("routed, a layer each", ""), ("routed, one layer", ">= 1.92")] {
        row(format!("throughput of 2 threads / 1 thread: {name}"), speed_up(turns, name), goal);
    }
    let adds = |count| [format!("Router, {count} sessions"), format!("Router, {count} sessions, idle")];
    for [name, idle] in SESSIONS.map(adds) {
        row(format!("a known session adds: {name}"), nanos(added(turns, &name, &idle)), "");
    }
    let [[few, few_idle], .., [many, many_idle]] = SESSIONS.map(adds);
    let growth = turns.median([&many, &many_idle, &few, &few_idle], |[many, many_idle, few, few_idle]| {
        (many - many_idle) / (few - few_idle)
    });
    row("  the last / the first", format!("{growth:.2}"), "<= 2");
}

fn refreshes(turns: &Turns, waiters: [Duration; 2], replays: [Duration; 2]) {
    row("a refresh, beyond the call itself", micros(added(turns, "refresh", "refresh by hand")), "< 100 us");
    row("a refresh joined by 50", micros(time(turns, "refresh joined by 50")), "<= 400 us");
    let [once, often] = replays.map(|median| median.as_secs_f64() * 1e9);
    row("a refresh beside 50 replays of a token rotated once", micros(once), "");
    row("  where it was rotated 300 times, that many times", format!("{:.3}", often / once), "< 1.1");
    let [alone, waiting] = waiters.map(|time| if time.is_zero() { f64::NAN } else { time.as_secs_f64() * 1e3 });
    row("10000 requests, on a processor: bare", format!("{alone:.0} ms"), "");
    row("  waiting for one refresh, beyond that", format!("{:.0} ms", waiting - alone), "< 40 ms");
}

fn plain(turns: &Turns) {
    row("bare inner service", nanos(time(turns, "bare")), "");
    row("by hand adds", nanos(added(turns, "by_hand", "bare")), "");
    row("warm adds", nanos(added(turns, "warm", "bare")), "");
    let share = turns.median(["limit", "warm", "bare"], |[limit, warm, bare]| limit / (warm - bare));
    row("  limit / that", format!("{share:.1}"), ">= 50");
    for (name, what, goal) in
        [("cold", "cold, beside a verification, adds", "<= 1.12"), ("crowd", "  where 16 MiB are full of others", "")]
    {
        row(what, nanos(added(turns, name, &format!("{name} floor"))), "");
        row("  (limit + that) / limit", over_limit(turns, name), goal);
    }
    for name in ["anonymous", "refused"] {
        row(format!("{name}, instead of the inner service"), nanos(time(turns, name)), "");
    }
    for (name, goal) in [("limit", ""), ("bare", ""), ("a layer each", ""), ("one layer", ">= 1.9")] {
        row(format!("throughput of 2 threads / 1 thread: {name}"), speed_up(turns, name), goal);
    }
    let large = SIZES.map(size_of_header).into_iter().chain(COUNTS.map(foreign_cookies)).map(|name| (name, "linear"));
    for (name, goal) in large.chain(SESSIONS.map(|count| (format!("{count} sessions"), "flat"))) {
        row(format!("warm adds, {name}"), nanos(added(turns, &name, &format!("{name} bare"))), goal);
    }
}

fn row(what: impl AsRef<str>, found: impl AsRef<str>, goal: &str) {
    println!("{:<62} {:>10} {goal:>10}", what.as_ref(), found.as_ref());
}

fn time(turns: &Turns, name: &str) -> f64 {
    turns.median([name], |[time]| time)
}

fn added(turns: &Turns, name: &str, baseline: &str) -> f64 {
    turns.median([name, baseline], |[time, baseline]| time - baseline)
}

fn over_limit(turns: &Turns, name: &str) -> String {
    let times = [name, &format!("{name} floor"), "limit"];
    format!("{:.3}", turns.median(times, |[time, floor, limit]| 1.0 + (time - floor) / limit))
}

fn speed_up(turns: &Turns, name: &str) -> String {
    let times = [&*format!("{name} on 1"), &format!("{name} on 2")];
    format!("{:.2}", turns.median(times, |[one, two]| 2.0 * one / two))
}

fn nanos(time: f64) -> String {
    format!("{time:.0} ns")
}

fn micros(time: f64) -> String {
    format!("{:.0} us", time / 1e3)
}
