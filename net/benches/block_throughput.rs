//! Files fetched over loopback from real block servers in this process, beside the bare loops that
//! are the limit. At the end every figure is printed as a share of its limit.
//!
//! Figures beside other programs', and with failing servers: `net/benches/peers/blocks`.

mod bare;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bare::Loop;
use cordee_net::blocks::fetch::{Fetch, FetchConfig, Source, Target, Verify};
use cordee_net::blocks::server::{BlockServer, BlockServerConfig, RunningBlockServer};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};

const NAME: &str = "file";
const BLOCK_BYTES: u32 = 256 << 10;

/// A way to fetch.
#[derive(Clone, Copy, Debug)]
struct Way {
    block_bytes: u32,
    sources: usize,
    connections: u32,
    connection_per_block: bool,
}

const USUAL: Way =
    Way { block_bytes: BLOCK_BYTES, sources: 1, connections: 2, connection_per_block: false };

fn ways() -> Vec<(String, Way)> {
    let mut ways = Vec::new();
    for connections in [1, 2, 4, 8] {
        ways.push((format!("connections-{connections}"), Way { connections, ..USUAL }));
    }
    for kib in [16, 64, 1024, 4096] {
        ways.push((format!("block-{kib}-KiB"), Way { block_bytes: kib << 10, ..USUAL }));
    }
    for sources in [2, 4] {
        ways.push((format!("sources-{sources}"), Way { sources, connections: 1, ..USUAL }));
    }
    let way = Way { connection_per_block: true, ..USUAL };
    ways.push(("connection-per-block".to_owned(), way));
    ways
}

/// Servers of one directory.
struct Servers(Vec<RunningBlockServer>);

impl Servers {
    fn start(way: Way, directory: &Path) -> Self {
        let start = |_| {
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let mut config = BlockServerConfig::new(listen, directory);
            config.block_bytes = way.block_bytes;
            BlockServer::start(config).expect("a server on a free port")
        };
        Servers((0..way.sources).map(start).collect())
    }

    /// Fetches the file once, and says how long that took.
    fn fetch(&self, way: Way, verify: Verify, target: &Path, length: u64) -> Duration {
        let source = |server: &RunningBlockServer| -> Source {
            server.local_addr().to_string().parse().expect("an address")
        };
        let sources = self.0.iter().map(source).collect();
        let mut config = FetchConfig::new(NAME, sources, Target::File(target.to_owned()));
        config.verify = verify;
        config.connections = Some(way.connections);
        config.connection_per_block = way.connection_per_block;
        // The bare loops do not sync either.
        config.durable = false;
        let begun = std::time::Instant::now();
        let report = Fetch::new(config).run(|_| ()).expect("a file that is served");
        let elapsed = begun.elapsed();
        assert_eq!(report.bytes, length);
        assert_eq!(report.verified, verify == Verify::Full);
        fs::remove_file(target).expect("the file that was fetched");
        elapsed
    }
}

fn file(path: &Path, length: u64) {
    let mut file = File::create(path).expect("a file");
    let mut hasher = blake3::Hasher::new_derive_key("a file to be fetched").finalize_xof();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..length >> 20 {
        hasher.fill(&mut piece);
        file.write_all(&piece).expect("room on the disk");
    }
}

/// Bytes per second, a name and the median of its runs.
type Rates = RefCell<Vec<(String, Vec<f64>)>>;

fn note(rates: &Rates, name: &str, length: u64, elapsed: Duration) {
    let mut rates = rates.borrow_mut();
    let rate = length as f64 / elapsed.as_secs_f64();
    match rates.iter_mut().find(|(known, _)| known == name) {
        Some((_, all)) => all.push(rate),
        None => rates.push((name.to_owned(), vec![rate])),
    }
}

fn throughput(criterion: &mut Criterion) {
    let test = std::env::args().any(|argument| argument == "--test");
    let length: u64 = if test { 4 << 20 } else { 256 << 20 };
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let served = directory.path().join("served");
    fs::create_dir(&served).expect("a directory");
    file(&served.join(NAME), length);
    let target: PathBuf = directory.path().join("target");

    for (verify, kind, name) in
        [(Verify::Full, Loop::Hash, "verified"), (Verify::None, Loop::Splice, "unverified")]
    {
        let rates = Rates::default();
        let mut group = criterion.benchmark_group(format!("block_throughput/{name}"));
        group.throughput(Throughput::Bytes(length));
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
        group.bench_function("limit", |bencher| {
            bencher.iter_custom(|count| {
                let run = |_| {
                    let elapsed = bare::run(kind, &served.join(NAME), &target).expect("loopback");
                    fs::remove_file(&target).expect("the file that came");
                    note(&rates, "limit", length, elapsed);
                    elapsed
                };
                (0..count).map(run).sum()
            });
        });
        for (name, way) in ways() {
            let servers = Servers::start(way, &served);
            // The first fetch waits until the file is hashed.
            servers.fetch(way, Verify::Full, &target, length);
            group.bench_function(BenchmarkId::from_parameter(&name), |bencher| {
                bencher.iter_custom(|count| {
                    let run = |_| {
                        let elapsed = servers.fetch(way, verify, &target, length);
                        note(&rates, &name, length, elapsed);
                        elapsed
                    };
                    (0..count).map(run).sum()
                });
            });
        }
        group.finish();
        if !test {
            print_shares(name, rates.into_inner());
        }
    }
}

/// Prints the medians as shares of the limit's.
#[expect(clippy::print_stdout, reason = "it is what the bench is run for")]
fn print_shares(group: &str, rates: Vec<(String, Vec<f64>)>) {
    let median = |mut all: Vec<f64>| {
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let mut limit = None;
    for (name, all) in rates {
        let rate = median(all);
        if name == "limit" {
            limit = Some(rate);
        }
        let share =
            limit.map_or_else(String::new, |limit| format!("{:3.0} %", 100.0 * rate / limit));
        println!("{group:<10} {name:<22} {:7.0} MB/s {share} of the limit", rate / 1e6);
    }
}

criterion_group!(benches, throughput);
criterion_main!(benches);
