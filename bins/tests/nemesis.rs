//! Servers are killed, stopped, cut off and starved under clients that talk: a few cycles of what
//! `cordee-nemesis` does for as long as it is told to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cordee_nemesis::{Options, run};

#[test]
fn nothing_is_lost_doubled_or_out_of_order_whatever_goes_wrong() {
    let directory = tempfile::tempdir().expect("a directory");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A known run, and one that nobody has seen. A failing one names its seed.
    for seed in [1, since.as_micros() as u64] {
        let options = Options {
            binary: env!("CARGO_BIN_EXE_cordee").into(),
            directory: directory.path().to_owned(),
            seed,
            namespaces: None,
            first: 0,
            cycles: 4,
            time_max: Duration::from_secs(240),
        };
        match run(&options, |_| ()) {
            Ok(summary) => assert!(summary.said > 0 && summary.shown > summary.said),
            Err(failure) => panic!("{failure}"),
        }
    }
}
