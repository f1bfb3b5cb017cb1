//! A file fetched with a progress callback, cancelled halfway from another thread, and then gone on
//! with: only what is missing comes.
//!
//! ```text
//! cargo run -p cordee-net --example fetch_with_progress
//! ```
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;

use cordee_net::blocks::fetch::{Event, Fetch, FetchConfig, FetchError, Stage, Target};
use cordee_net::blocks::server::{BlockServer, BlockServerConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("cordee-example-{}", std::process::id()));
    let served = directory.join("served");
    std::fs::create_dir_all(&served)?;
    let bytes: Vec<u8> = (0..LENGTH).map(|at| (at * 31 + at / 251) as u8).collect();
    std::fs::write(served.join("film"), &bytes)?;

    // A slow server, so that there is time to change one's mind.
    let mut config = BlockServerConfig::new("127.0.0.1:0".parse()?, &served);
    config.limit_rate = Some(LENGTH as u64);
    config.block_bytes = 64 << 10;
    let server = BlockServer::start(config)?;
    let source = server.local_addr().to_string();
    let target = directory.join("film");

    // Another thread cancels when half of it is there.
    let fetch = Fetch::new(config_of(&source, &target)?);
    let cancel = fetch.cancel();
    let (sender, progress) = channel();
    let canceller = thread::spawn(move || {
        if progress.iter().any(|bytes: u64| bytes >= LENGTH as u64 / 2) {
            cancel.cancel();
        }
    });
    let stopped = fetch.run(|event| {
        if let Event::Progress(progress) = event {
            println!("{:?}: {} of {} bytes", progress.stage, progress.bytes, progress.total);
            if progress.stage == Stage::Fetching {
                // Once cancelled, nobody listens.
                let _ = sender.send(progress.bytes);
            }
        }
    });
    assert!(matches!(stopped, Err(FetchError::Cancelled)), "{stopped:?}");
    drop(sender);
    canceller.join().map_err(|_| "the other thread panicked")?;

    // The same again goes on where it was.
    let report = Fetch::new(config_of(&source, &target)?).run(|_| {})?;
    println!("{} bytes were there, then all {}", report.resumed_bytes, report.bytes);
    assert!(report.verified && report.resumed_bytes >= LENGTH as u64 / 2);
    assert!(std::fs::read(&target)? == bytes);

    server.stopper().stop();
    server.wait()?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

fn config_of(source: &str, target: &Path) -> Result<FetchConfig, Box<dyn Error>> {
    let sources = vec![source.parse()?];
    Ok(FetchConfig::new("film", sources, Target::File(target.to_owned())))
}

const LENGTH: usize = 4 << 20;
