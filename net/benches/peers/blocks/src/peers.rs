//! Beside the bare loops, and beside other programs: in turn, A B A B.

use std::fs;
use std::process::Command;

use crate::bare::{self, Loop};
use crate::one;
use crate::process::{Server, Took, client, find, own_cpu_s};
use crate::report::{Bound, line, row};
use crate::world::{NAME, World};
use crate::{Arguments, Result};

/// Ours against the loops that do only what has to be done.
pub(crate) fn limit(arguments: &Arguments, world: &World) -> Result<bool> {
    let server = hashed(world)?;
    let gigabytes = world.size as f64 / 1e9;
    let mut good = true;
    for (verify, kind, name, must, goal) in [
        (true, Loop::Hash, "verified", 1.0, 0.80),
        (false, Loop::Splice, "not verified", 0.6, 0.46),
    ] {
        let (mut walls, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..arguments.pairs {
            world.prime()?;
            let own = own_cpu_s();
            let bare = bare::run(kind, &world.served().join(NAME), &world.target())?;
            // Both sides are threads of this program; which took what is not told apart.
            let both_cpu_s = own_cpu_s() - own;
            world.check(NAME, false)?;
            let ours = one::fetch(world, &[&server], verify)?;
            let wall_s = bare.as_secs_f64();
            line(format_args!(
                "    bare loop              wall {wall_s:.3} s, CPU of both {both_cpu_s:.2} s"
            ));
            told("cordee", ours);
            walls.push(ours.wall_s / bare.as_secs_f64());
            cpu.push(ours.cpu_s() / gigabytes);
        }
        let bound = Bound::Most(1.25, 1.10);
        good &= row(&format!("{name}: wall ÷ bare loop"), "", &walls, bound);
        good &= row(&format!("{name}: CPU of both sides"), "s/GB", &cpu, Bound::Most(must, goal));
    }
    Ok(good)
}

/// Another program that fetches from nginx.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Aria2 { mirrors: usize, hashed: bool },
    Curl,
    Axel,
}

const PEERS: [(&str, Peer); 7] = [
    ("aria2c, 1 mirror", Peer::Aria2 { mirrors: 1, hashed: false }),
    ("aria2c, 2 mirrors", Peer::Aria2 { mirrors: 2, hashed: false }),
    ("aria2c, 4 mirrors", Peer::Aria2 { mirrors: 4, hashed: false }),
    ("aria2c, 1 mirror, SHA-256", Peer::Aria2 { mirrors: 1, hashed: true }),
    ("aria2c, 2 mirrors, SHA-256", Peer::Aria2 { mirrors: 2, hashed: true }),
    ("curl", Peer::Curl),
    ("axel, 2 mirrors", Peer::Axel),
];

impl Peer {
    fn program(self) -> &'static str {
        match self {
            Peer::Aria2 { .. } => "aria2c",
            Peer::Curl => "curl",
            Peer::Axel => "axel",
        }
    }

    /// How many times its throughput ours must be with verification, and is to be.
    fn bound(self) -> Bound {
        match self {
            Peer::Aria2 { hashed: false, .. } => Bound::Least(3.0, 6.0),
            Peer::Aria2 { hashed: true, .. } => Bound::Least(4.0, 7.0),
            Peer::Curl | Peer::Axel => Bound::Told,
        }
    }

    fn mirrors(self) -> usize {
        match self {
            Peer::Aria2 { mirrors, .. } => mirrors,
            Peer::Curl => 1,
            Peer::Axel => 2,
        }
    }

    fn fetch(self, world: &World, nginx: &Server, sha256: &str) -> Result<Took> {
        world.prime()?;
        let url = |mirror| format!("http://{}/{NAME}", nginx.address(mirror));
        let mut command = Command::new(self.program());
        match self {
            Peer::Aria2 { mirrors, hashed } => {
                let split = mirrors.max(2);
                command.args(["--no-conf", "-q", "-x2", "-k1M", "--file-allocation=falloc"]);
                command
                    .arg(format!("-s{split}"))
                    .arg("-d")
                    .arg(world.home())
                    .args(["-o", "target"]);
                if hashed {
                    command.arg(format!("--checksum=sha-256={sha256}"));
                }
            }
            Peer::Curl => {
                command.args(["-s", "-f", "-o"]).arg(world.target());
            }
            Peer::Axel => {
                command.args(["-q", "-n", "2", "-o"]).arg(world.target());
            }
        }
        command.args((0..self.mirrors()).map(url));
        let (took, _) = client(&mut command, &[nginx])?;
        world.check(NAME, false)?;
        world.clean();
        Ok(took)
    }
}

/// Ours with verification and without, beside each of the others.
pub(crate) fn peers(arguments: &Arguments, world: &World) -> Result<bool> {
    let sum = Command::new("sha256sum").arg(world.served().join(NAME)).output()?;
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    let sha256 = sum.split_whitespace().next().unwrap_or_default();
    let home = world.home().join("nginx");
    fs::create_dir_all(&home)?;
    let nginx = Server::nginx(&world.served(), &home, 4)?;
    let mut good = true;
    for (name, peer) in PEERS {
        if find(peer.program()).is_none() {
            line(format_args!("{name}: not measured, it is not installed"));
            continue;
        }
        let start = |_| hashed(world);
        let servers: Vec<Server> = (0..peer.mirrors()).map(start).collect::<Result<_>>()?;
        let servers: Vec<&Server> = servers.iter().collect();
        let mut ratios = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..arguments.pairs {
            let theirs = peer.fetch(world, &nginx, sha256)?;
            let verified = one::fetch(world, &servers, true)?;
            let unverified = one::fetch(world, &servers, false)?;
            told(peer.program(), theirs);
            told("cordee", verified);
            told("cordee, not verified", unverified);
            ratios[0].push(theirs.wall_s / verified.wall_s);
            ratios[1].push(verified.cpu_s() / theirs.cpu_s());
            ratios[2].push(theirs.wall_s / unverified.wall_s);
            ratios[3].push(unverified.cpu_s() / theirs.cpu_s());
        }
        let [rate, cpu, rate_none, cpu_none] = &ratios;
        good &= row(&format!("{name}: throughput, ours verified"), "×", rate, peer.bound());
        row(&format!("{name}: CPU, ours verified"), "×", cpu, Bound::Told);
        row(&format!("{name}: throughput, ours not verified"), "×", rate_none, Bound::Told);
        row(&format!("{name}: CPU, ours not verified"), "×", cpu_none, Bound::Told);
    }
    Ok(good)
}

/// A server that has hashed the file.
pub(crate) fn hashed(world: &World) -> Result<Server> {
    let server = Server::cordee(&world.cordee, &world.served(), None)?;
    one::fetch(world, &[&server], true)?;
    Ok(server)
}

fn told(name: &str, took: Took) {
    let Took { wall_s, client_cpu_s, server_cpu_s } = took;
    line(format_args!(
        "    {name:<22} wall {wall_s:.3} s, CPU of the client {client_cpu_s:.2} s, of the servers {server_cpu_s:.2} s"
    ));
}
