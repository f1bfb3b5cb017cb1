//! Ours while servers are slow, frozen, or the fetcher is killed; rates are those of our own servers.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cordee_net::blocks::fetch::{Event, Fetch, Progress, Report};

use crate::one;
use crate::peers::hashed;
use crate::process::Server;
use crate::report::{Bound, row};
use crate::world::World;
use crate::{Arguments, Result};

const MIB: f64 = 1_048_576.0;
const SLOW: &str = "failing";
const LONGEST: u64 = 600_000_000;

/// A server of so many MiB/s that has hashed the file.
fn server(world: &World, rate: f64) -> Result<Server> {
    Server::cordee(&world.cordee, &world.served(), Some((rate * MIB) as u64))
}

/// Fetches once in this process, and checks every byte. The time does not count the hashing.
fn fetch(world: &World, servers: &[&Server], tell: impl FnMut(&Progress)) -> Result<Report> {
    let mut tell = tell;
    world.clean();
    let source = |server: &&Server| server.address(0).to_string().parse();
    let sources = servers.iter().map(source).collect::<std::result::Result<_, _>>()?;
    let fetch = Fetch::new(one::config(SLOW, sources, world.target()));
    let report = fetch.run(|event| {
        if let Event::Progress(progress) = event {
            tell(&progress);
        }
    })?;
    world.check(SLOW, true)?;
    world.clean();
    Ok(report)
}

/// Lets servers hash the file, without its bytes: a fetch that is cancelled when blocks come.
fn warm(world: &World, servers: &[&Server]) -> Result<()> {
    for server in servers {
        let source = server.address(0).to_string().parse()?;
        let fetch = Fetch::new(one::config(SLOW, vec![source], world.target()));
        let cancel = fetch.cancel();
        // It ends as cancelled, and that is what it is to do.
        let _ = fetch.run(|event| {
            if matches!(event, Event::Progress(progress) if progress.bytes > 0 && progress.total > 0)
            {
                cancel.cancel();
            }
        });
    }
    // What they may send at once was spent by that; a second fills it again, as for everybody.
    sleep(Duration::from_secs(1));
    world.clean();
    Ok(())
}

fn duplicates(report: &Report) -> f64 {
    100.0 * report.duplicate_bytes as f64 / report.bytes as f64
}

/// Two servers of different rates.
pub(crate) fn slow(arguments: &Arguments, world: &World) -> Result<bool> {
    let mut good = true;
    for (fast, slow) in [(20.0, 1.0), (20.0, 0.02), (200.0, 1.0)] {
        let length = if fast > 100.0 { LONGEST.min(world.size) } else { 64 << 20 };
        world.file(SLOW, length)?;
        let ideal = length as f64 / ((fast + slow) * MIB);
        let servers = [server(world, fast)?, server(world, slow)?];
        let servers = [&servers[0], &servers[1]];
        warm(world, &servers)?;
        let (mut walls, mut double) = (Vec::new(), Vec::new());
        for _ in 0..arguments.pairs {
            let report = fetch(world, &servers, |_| ())?;
            walls.push(report.elapsed.as_secs_f64() / ideal);
            double.push(duplicates(&report));
        }
        let name = format!("{fast} + {slow} MiB/s");
        good &= row(&format!("{name}: wall ÷ ideal"), "", &walls, Bound::Most(1.10, 1.05));
        good &= row(&format!("{name}: duplicates"), "%", &double, Bound::Most(2.0, 0.5));
    }
    world.file(SLOW, LONGEST.min(world.size))?;
    let (quick, slow) = (hashed(world)?, server(world, 1.0)?);
    warm(world, &[&quick, &slow])?;
    let (mut more, mut double) = (Vec::new(), Vec::new());
    for _ in 0..arguments.pairs {
        world.prime()?;
        let alone = fetch(world, &[&quick], |_| ())?;
        world.prime()?;
        let both = fetch(world, &[&quick, &slow], |_| ())?;
        more.push(1e3 * (both.elapsed.as_secs_f64() - alone.elapsed.as_secs_f64()));
        double.push(duplicates(&both));
    }
    good &= row("unlimited + 1 MiB/s: wall − alone", "ms", &more, Bound::Most(150.0, 50.0));
    good &= row("unlimited + 1 MiB/s: duplicates", "%", &double, Bound::Most(2.0, 0.5));
    Ok(good)
}

/// One of two servers is stopped with SIGSTOP.
pub(crate) fn frozen(arguments: &Arguments, world: &World) -> Result<bool> {
    const RATE: f64 = 50.0;
    let length: u64 = 256 << 20;
    world.file(SLOW, length)?;
    let mut good = true;
    for share in [0.30, 0.97] {
        let ideal = length as f64 / (RATE * MIB) * (share / 2.0 + (1.0 - share));
        let (mut walls, mut double) = (Vec::new(), Vec::new());
        for _ in 0..arguments.pairs {
            let servers = [server(world, RATE)?, server(world, RATE)?];
            warm(world, &[&servers[0], &servers[1]])?;
            let mut frozen = false;
            let report = fetch(world, &[&servers[0], &servers[1]], |progress| {
                if !frozen && progress.bytes as f64 >= share * length as f64 {
                    frozen = true;
                    servers[1].freeze();
                }
            })?;
            if !frozen {
                return Err("the file came before a server could be frozen".into());
            }
            let wall = report.elapsed.as_secs_f64();
            walls.push(if share < 0.5 { wall / ideal } else { wall - ideal });
            double.push(duplicates(&report));
        }
        good &= if share < 0.5 {
            row("frozen at 30 %: wall ÷ ideal", "", &walls, Bound::Most(1.05, 1.02))
        } else {
            row("frozen at 97 %: wall − ideal", "s", &walls, Bound::Most(1.0, 0.4))
        };
        let name = format!("frozen at {:.0} %: duplicates", 100.0 * share);
        good &= row(&name, "%", &double, Bound::Most(2.0, 0.5));
    }
    Ok(good)
}

/// The program itself is killed at random instants, and run again.
pub(crate) fn killed(arguments: &Arguments, world: &World) -> Result<bool> {
    world.file(SLOW, LONGEST.min(world.size))?;
    let servers = [server(world, 200.0)?, server(world, 200.0)?];
    let servers = [&servers[0], &servers[1]];
    warm(world, &servers)?;
    let whole_s = LONGEST.min(world.size) as f64 / (400.0 * MIB);
    let mut random = blake3::Hasher::new().update(&std::process::id().to_le_bytes()).finalize_xof();
    let (mut ratios, mut rest) = (Vec::new(), Vec::new());
    while ratios.len() < arguments.pairs.max(5) {
        world.clean();
        let mut draw = [0; 4];
        random.fill(&mut draw);
        let after =
            whole_s * (0.05 + 0.85 * f64::from(u32::from_le_bytes(draw)) / f64::from(u32::MAX));
        let mut command = Command::new(&world.cordee);
        command.args(["fetch", SLOW, "-o"]).arg(world.target());
        for server in servers {
            command.arg("--from").arg(server.address(0).to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let begun = Instant::now();
        while begun.elapsed().as_secs_f64() < after && child.try_wait()?.is_none() {
            sleep(Duration::from_millis(1));
        }
        child.kill()?;
        child.wait()?;
        let missing = missing(world)?;
        if missing == 0 {
            continue;
        }
        let source = |server: &Server| server.address(0).to_string().parse();
        let sources = servers.into_iter().map(source).collect::<std::result::Result<_, _>>()?;
        let report = Fetch::new(one::config(SLOW, sources, world.target())).run(|_| ())?;
        world.check(SLOW, true)?;
        rest.push(100.0 * missing as f64 / report.bytes as f64);
        ratios.push(one::came(&report) as f64 / missing as f64);
    }
    world.clean();
    row("kill -9: missing of the file", "%", &rest, Bound::Told);
    Ok(row("kill -9: bytes sent ÷ bytes missing", "", &ratios, Bound::Most(1.05, 1.01)))
}

/// Bytes of blocks that are not in the unfinished file.
fn missing(world: &World) -> Result<u64> {
    if world.target().exists() {
        return Ok(0);
    }
    let length = fs::metadata(world.served().join(SLOW))?.len();
    let Ok(mut part) = File::open(world.home().join("target.part")) else { return Ok(length) };
    let mut source = File::open(world.served().join(SLOW))?;
    let (mut there, mut wanted) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let (mut at, mut missing) = (0, 0);
    while at < length {
        let bytes = (length - at).min(BLOCK_BYTES as u64) as usize;
        source.read_exact(&mut wanted[..bytes])?;
        let whole = part.read_exact(&mut there[..bytes]).is_ok();
        if !whole || there[..bytes] != wanted[..bytes] {
            missing += bytes as u64;
        }
        at += bytes as u64;
    }
    Ok(missing)
}

const BLOCK_BYTES: usize = 256 << 10;
