//! What processes use, and what they are allowed to.

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

/// A process by its number, as it told it. It may have gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process(pub u32);

impl Process {
    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Whether it runs. A zombie does not.
    #[must_use]
    pub fn runs(self) -> bool {
        self.fields().is_some_and(|fields| !fields.starts_with(['Z', 'X']))
    }

    /// Resident memory in bytes; 0 of a process that has gone.
    #[must_use]
    pub fn resident_bytes(self) -> u64 {
        self.status("VmRSS:") * 1_024
    }

    /// Mapped memory in bytes; 0 of a process that has gone.
    #[must_use]
    pub fn mapped_bytes(self) -> u64 {
        self.status("VmSize:") * 1_024
    }

    /// User and system time so far, in seconds.
    #[must_use]
    pub fn cpu_seconds(self) -> f64 {
        let fields = self.fields().unwrap_or_default();
        // After the name they are the 12th and the 13th.
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// Open descriptors.
    #[must_use]
    pub fn descriptors(self) -> u64 {
        fs::read_dir(format!("/proc/{}/fd", self.0)).map_or(0, |entries| entries.count() as u64)
    }

    /// The greatest descriptor that is open, and one.
    fn descriptors_end(self) -> u64 {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", self.0)) else { return 0 };
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.max().map_or(0, |greatest: u64| greatest + 1)
    }

    /// Lets it open only `more` descriptors than those it has. Returns what was allowed before.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub fn starve_of_descriptors(self, more: u64) -> io::Result<Rlimit> {
        self.limit(Resource::Nofile, self.descriptors_end() + more)
    }

    /// Lets it map only `more` bytes than it has. Returns what was allowed before.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub fn starve_of_memory(self, more: u64) -> io::Result<Rlimit> {
        self.limit(Resource::As, self.mapped_bytes() + more)
    }

    /// Allows it again what was allowed before.
    pub fn allow(self, resource: Resource, before: Rlimit) {
        // It fails only for a process that has gone.
        let _ = self.pid().and_then(|pid| Ok(prlimit(Some(pid), resource, before)?));
    }

    fn limit(self, resource: Resource, current: u64) -> io::Result<Rlimit> {
        let name =
            if resource == Resource::Nofile { "Max open files" } else { "Max address space" };
        let text = fs::read_to_string(format!("/proc/{}/limits", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let maximum = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        Ok(prlimit(Some(self.pid()?), resource, Rlimit { current: Some(current), maximum })?)
    }

    fn pid(self) -> io::Result<Pid> {
        let raw = i32::try_from(self.0).ok().and_then(Pid::from_raw);
        raw.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// The processes that it started and that are its children still.
    #[must_use]
    pub fn children(self) -> Vec<Process> {
        // Each thread has children of its own.
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.0)) else { return Vec::new() };
        let lists = threads
            .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
        let numbers: Vec<u32> = lists
            .flat_map(|list| {
                list.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>()
            })
            .collect();
        numbers.into_iter().map(Process).collect()
    }

    /// What stands in its `stat` behind the name.
    fn fields(self) -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        Some(stat.rsplit_once(") ")?.1.to_owned())
    }

    /// A line of its `status`, in the unit that stands there.
    fn status(self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}
