//! Failover: servers are killed under a client that hears a message every millisecond.
//!
//! A *talker* speaks every millisecond at a server that survives; a *watcher* hears it at the one
//! that is killed, and speaks itself. What each hears of the other is numbered, so that whatever is
//! lost, doubled or out of order shows. The gap is the watcher's longest silence around a kill.

use std::time::{Duration, Instant};

use argh::FromArgs;
use rustix::process::Signal;

use crate::cordee::{Cordee, is_linked, report};
use crate::failure::{Result, broken};
use crate::process::{loopback, signal};
use crate::report::line;
use crate::shapes::{Limit, keep};
use crate::swarm::Swarm;
use crate::system::System;

mod party;

use party::{Faults, Party};

/// kill servers under a client that hears a message every millisecond, and measure the gaps
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "failover")]
pub(crate) struct Failover {
    /// how many kills (50)
    #[argh(option, default = "50")]
    kills: usize,

    /// how many messages of 1 KiB the archive holds before (0)
    #[argh(option, default = "0")]
    archive: u64,
}

/// Between two messages of the talker.
const TALKER: Duration = Duration::from_millis(1);
/// Between two messages of the watcher.
const WATCHER: Duration = Duration::from_millis(5);
/// Everyone is undisturbed for so long before a kill, and the gap is looked for so long after it.
const CALM: Duration = Duration::from_millis(500);
/// For a server to come back, and for messages to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it; whether nothing was lost or doubled.
pub(crate) fn run(failover: &Failover) -> bool {
    match kill_all(failover.kills, failover.archive) {
        Ok(good) => good,
        Err(failure) => {
            line(format_args!("failed: {failure}"));
            false
        }
    }
}

fn kill_all(kills: usize, archive: u64) -> Result<bool> {
    let mut cluster = Cordee::start(true)?;
    fill(&mut cluster, archive)?;
    let ports = cluster.ports();
    let address = |at: usize| loopback(ports[at % ports.len()]).to_string();
    let watcher = Party::start("watcher", "talker", &address(0), WATCHER, 0)?;
    let mut talker = Party::start("talker", "watcher", &address(1), TALKER, 0)?;
    let mut faults = Faults::default();
    let mut gaps_us = Vec::new();
    for kill in 1..=kills {
        let victim = watcher.server();
        let Some(at) = (0..ports.len()).find(|at| address(*at) == victim) else {
            return broken(format!("the watcher is at {victim}, which is none of the servers"));
        };
        if talker.server() == victim {
            // It must survive, so it goes on elsewhere; a client that is told to leaves nothing
            // unacknowledged behind.
            let (left, said) = talker.leave()?;
            faults.add(left);
            // The name of the one before may not be free everywhere yet.
            let name = format!("talker-{kill}");
            talker = Party::start(&name, "watcher", &address(at + 2), TALKER, said)?;
        }
        std::thread::sleep(CALM);
        watcher.forget_silence();
        let old = report(ports[at])?.pid;
        signal(old, Signal::KILL);
        std::thread::sleep(CALM);
        await_moved(&watcher, &victim)?;
        let gap = watcher.longest_silence();
        line(format_args!(
            "  kill {kill}: {victim} → {}, gap {:.1} ms",
            watcher.server(),
            gap.as_secs_f64() * 1e3
        ));
        gaps_us.push(gap.as_micros() as u32);
        await_return(ports, at, old)?;
    }
    let (left, talker_said) = talker.leave()?;
    faults.add(left);
    let heard = watcher.await_heard(talker_said, PATIENCE);
    let (left, watcher_said) = watcher.leave()?;
    faults.add(left);
    line(format_args!("  talker said {talker_said}, watcher said {watcher_said}"));
    if !heard {
        return broken("the watcher does not hear everything");
    }
    gaps_us.sort_unstable();
    print(&gaps_us, faults);
    Ok(faults == Faults::default())
}

/// Says so many messages of 1 KiB. What a killed server has to give back grows with its archive.
fn fill(cluster: &mut Cordee, messages: u64) -> Result<()> {
    if messages == 0 {
        return Ok(());
    }
    let mut swarm = Swarm::new()?;
    let keeper = swarm.add(cluster.keeper()?, 0)?;
    keep(&mut swarm, keeper, 1 << 10, 256, Limit::Count(messages))?;
    let reports: Vec<_> =
        cluster.ports().iter().map(|port| report(*port)).collect::<Result<_>>()?;
    for server in reports {
        line(format_args!(
            "  {} holds {} messages, {} MB",
            server.address,
            server.ma,
            server.memory_bytes >> 20
        ));
    }
    Ok(())
}

fn await_moved(watcher: &Party, from: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while watcher.server() == from {
        if Instant::now() > end {
            return broken(format!("the watcher stays at {from}, which was killed"));
        }
        std::thread::sleep(CALM);
    }
    Ok(())
}

/// Waits until the server that was killed is back and holds what the others do.
fn await_return(ports: &[u16], killed: usize, old: u32) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let reports: Vec<_> = ports.iter().filter_map(|port| report(*port).ok()).collect();
        let whole = reports.len() == ports.len()
            && reports.iter().all(|server| is_linked(server, ports.len()))
            && reports[killed].pid != old;
        if whole {
            let least = reports.iter().map(|server| server.ma).min().unwrap_or(0);
            if report(ports[killed])?.ma >= least {
                return Ok(());
            }
        }
        if Instant::now() > end {
            return broken("a server that was killed does not come back");
        }
    }
}

fn print(gaps_us: &[u32], faults: Faults) {
    let at = |share: usize| {
        let at = (gaps_us.len() * share / 100).min(gaps_us.len().saturating_sub(1));
        gaps_us.get(at).map_or(0.0, |gap| f64::from(*gap) / 1e3)
    };
    let (second, worst) = match gaps_us {
        [.., second, worst] => (f64::from(*second) / 1e3, f64::from(*worst) / 1e3),
        _ => (0.0, at(100)),
    };
    line(format_args!(
        "  gap p50 {:.1} ms, p99 {:.1} ms, max {worst:.1} ms; all but the worst ≤ {second:.1} ms",
        at(50),
        at(99),
    ));
    let Faults { lost, doubled, refused } = faults;
    line(format_args!("  lost {lost}, doubled or out of order {doubled}, refused {refused}"));
}
