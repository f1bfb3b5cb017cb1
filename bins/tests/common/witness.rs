//! Honest people who talk while others attack, and what the attack costs the server.

use std::time::{Duration, Instant};

use cordee_nemesis::Process;

use super::{Client, Cluster, wait_until};

/// Two people who talk meanwhile, and must not notice anything.
pub struct Witnesses {
    pub ada: Client,
    pub bob: Client,
    said: u32,
}

impl Witnesses {
    /// Ada is at the first server, bob at the last.
    pub fn new(cluster: &Cluster) -> Self {
        let ada = Client::start(&cluster.addresses[..1], "ada");
        let last = cluster.addresses.len() - 1;
        let bob = Client::start(&cluster.addresses[last..], "bob");
        Witnesses { ada, bob, said: 0 }
    }

    pub fn talk(&mut self) {
        self.said += 1;
        let text = format!("witness {}", self.said);
        self.ada.say(&text);
        self.bob.wait_for_body(&text);
    }

    /// Talks for a while; each word is heard within the time that people would wait.
    pub fn talk_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let begun = Instant::now();
            self.talk();
            assert_within(begun, "a word is heard");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn assert_undisturbed(mut self) {
        self.talk();
        for client in [&self.ada, &self.bob] {
            let disturbed = client.seen.iter().find(|event| event["event"] == "disconnected");
            assert_eq!(disturbed, None);
        }
        let expected: Vec<String> = (1..=self.said).map(|n| format!("witness {n}")).collect();
        let heard: Vec<String> =
            self.bob.bodies().into_iter().filter(|body| body.starts_with("witness")).collect();
        assert_eq!(heard, expected);
    }
}

/// Somebody new comes in, and is served.
pub fn a_newcomer_is_served(cluster: &Cluster, name: &str) {
    let begun = Instant::now();
    let mut newcomer = Client::start(&cluster.addresses[..1], name);
    newcomer.say("hello");
    newcomer.wait_for_sent("hello");
    assert_within(begun, "a newcomer is served");
}

/// No measure of speed: what takes longer was not served.
fn assert_within(begun: Instant, what: &str) {
    assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
}

/// What a server used when an attack began.
pub struct Meter {
    what: String,
    process: Process,
    resident_bytes: u64,
    cpu_seconds: f64,
    descriptors: u64,
    begun: Instant,
}

impl Meter {
    pub fn new(cluster: &Cluster, index: usize) -> Meter {
        let process = Process(cluster.pid(index) as u32);
        Meter {
            what: String::from("the attack"),
            process,
            resident_bytes: process.resident_bytes(),
            cpu_seconds: process.cpu_seconds(),
            descriptors: process.descriptors(),
            begun: Instant::now(),
        }
    }

    /// What the attack is called when it costs too much.
    pub fn of(self, what: &str) -> Meter {
        Meter { what: what.to_owned(), ..self }
    }

    /// The process that is measured.
    pub fn process(&self) -> Process {
        self.process
    }

    /// No more memory than that is taken in addition.
    pub fn assert_memory(&self, bytes_max: u64) {
        assert!(self.process.runs(), "{}: the server died", self.what);
        let more = self.process.resident_bytes().saturating_sub(self.resident_bytes);
        assert!(more <= bytes_max, "{}: {more} bytes of memory in addition", self.what);
    }

    /// No more descriptors than that are open in addition.
    pub fn assert_descriptors(&self, max: u64) {
        let more = self.process.descriptors().saturating_sub(self.descriptors);
        assert!(more <= max, "{}: {more} descriptors in addition", self.what);
    }

    /// Waits until the attack's descriptors are closed.
    pub fn wait_until_closed(&self) {
        wait_until("the descriptors to be closed", || {
            // Witnesses and newcomers come and go meanwhile.
            (self.process.descriptors() <= self.descriptors + 16).then_some(())
        });
    }

    /// Of one core, no more than that share was used: nothing spins.
    pub fn assert_cpu(&self, share_max: f64) {
        let used = self.process.cpu_seconds() - self.cpu_seconds;
        let share = used / self.begun.elapsed().as_secs_f64();
        assert!(
            share <= share_max,
            "{}: {used} s of processor time, {share:.2} of a core",
            self.what
        );
    }
}
