//! One fetch with the library, in a process of its own so that its processor time can be told.

use std::process::Command;

use cordee_net::blocks::fetch::{Fetch, FetchConfig, Report, Source, Target, Verify};

use crate::Result;
use crate::process::{Server, Took, client};
use crate::world::{NAME, World};

/// The program's other face.
pub(crate) fn main(once: &[String]) -> Result<()> {
    let [name, target, verify, sources @ ..] = once else {
        return Err("name, target, full or none, sources".into());
    };
    let sources =
        sources.iter().map(|source| source.parse()).collect::<std::result::Result<_, _>>()?;
    let mut config = config(name, sources, target.into());
    config.verify = if verify == "full" { Verify::Full } else { Verify::None };
    let report = Fetch::new(config).run(|_| ())?;
    crate::report::line(format_args!("{}", report.duplicate_bytes));
    Ok(())
}

/// As the others do it: nothing is synced.
pub(crate) fn config(name: &str, sources: Vec<Source>, target: std::path::PathBuf) -> FetchConfig {
    let mut config = FetchConfig::new(name, sources, Target::File(target));
    config.durable = false;
    config.progress_every = std::time::Duration::from_millis(5);
    config
}

/// Fetches the file once from `servers` in a process of its own, and removes it.
pub(crate) fn fetch(world: &World, servers: &[&Server], verify: bool) -> Result<Took> {
    world.prime()?;
    let mut command = Command::new(&world.own);
    command.arg(NAME).arg(world.target()).arg(if verify { "full" } else { "none" });
    command.args(servers.iter().map(|server| server.address(0).to_string()));
    let (took, _) = client(&mut command, servers)?;
    world.check(NAME, false)?;
    world.clean();
    Ok(took)
}

/// Bytes that came from all sources.
pub(crate) fn came(report: &Report) -> u64 {
    report.sources.iter().map(|source| source.bytes).sum()
}
