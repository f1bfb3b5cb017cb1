//! What happens in a world, drawn from a seed: which servers and clients there are, what its people
//! do, which faults it knows (each seed switches on its own subset, a swarm), and when.
//!
//! A plan is data. Every draw is a hash of the seed, of what is drawn, and of its number, so that
//! leaving an act out changes no other.

use cordee_core::Limits;
use cordee_core::time::SECOND_US;

use crate::draw::Draw;
use crate::world::Options;

/// Declares what can happen, and how it is called.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $says:literal])+ $kind:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[doc = $says])+ $kind,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$kind,)+];
        }
    };
}

kinds! {
    /// What goes wrong in a world.
    Fault {
        /// A server dies with all it had. Connections lose a part of what they carried.
        Crash,
        /// A server that is down starts with nothing.
        Restart,
        /// A server starts and dies while it is catching up.
        FalseStart,
        /// A server does nothing for a while; its connections stay.
        Freeze,
        /// Between two servers nothing arrives any more, connections stay.
        Hang,
        /// Connections between two servers are reset, and refused.
        Refuse,
        /// From one server to another nothing arrives; the other way it does.
        OneWay,
        /// The servers fall into two parts.
        Split,
        /// The servers fall into two parts, but for one that both hear.
        Bridge,
        /// Links hang one after the other and come back in another order.
        Swizzle,
        /// What was cut between two servers is whole again.
        Heal,
        /// A connection is reset and loses the end of what flew on it.
        Reset,
        /// Nothing arrives on a connection for a while, then all of it at once.
        Stall,
        /// A client is gone and its server does not notice.
        HalfOpen,
        /// A client reads nothing for a while.
        SlowReader,
        /// A server's storage takes a hundred times as long for a while.
        SlowDisk,
        /// A server's storage does nothing for a while.
        StuckDisk,
        /// A server's wall clock is set, by up to two hours either way.
        ClockJump,
        /// A server's wall clock runs fast or slow from now on.
        ClockDrift,
        /// Everything takes longer on the network for a while.
        SlowNetwork,
        /// A server is asked to stop, and starts again later.
        Drain,
        /// An operator gives a server up that is down.
        Forget,
        /// A user crashes the server that it is on.
        Kill,
        /// Somebody connects and sends bytes that mean nothing.
        Garbage,
        /// Somebody says hello and sends frames with nonsense in them.
        Nonsense,
        /// Somebody sends the beginning of a frame, and waits.
        Loris,
        /// Many connect at once and say nothing.
        Crowd,
    }
}

kinds! {
    /// What people do in a world, besides talking in rooms.
    Habit {
        /// They come into a room.
        Join,
        /// They leave a room.
        Leave,
        /// Two talk alone.
        Alone,
        /// They go on at another server.
        Move,
        /// They forget everything and want all of it anew.
        Forgetful,
        /// They ask how things stand.
        Ask,
        /// They take another name.
        Rename,
        /// Several take the same name at once.
        Clash,
        /// They set a topic.
        Topic,
        /// They look back, and for words.
        Look,
        /// Somebody new comes.
        Arrive,
        /// Several new ones come at once, to one server.
        Rush,
        /// Somebody leaves for good.
        Quit,
        /// Somebody is gone for good without a word.
        Vanish,
        /// Somebody says very much at once.
        Flood,
        /// Somebody asks very much at once.
        Pester,
        /// Somebody says long things.
        Long,
    }
}

impl Fault {
    /// Whether servers go on without each other.
    pub(crate) fn cuts_off(self) -> bool {
        use Fault::{Bridge, Freeze, Hang, OneWay, Refuse, SlowNetwork, Split, Stall, Swizzle};
        matches!(
            self,
            Bridge | Freeze | Hang | OneWay | Refuse | SlowNetwork | Split | Stall | Swizzle
        )
    }
}

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Somebody says something in a room.
    Talk,
    /// Somebody does something else.
    Habit(Habit),
    /// Something goes wrong.
    Fault(Fault),
}

/// Something that happens at a time: `number` and `dice` decide on the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act {
    /// Its number in the plan.
    pub number: u64,
    /// When, in milliseconds after everybody came in.
    pub at_ms: u64,
    /// What.
    pub what: What,
    /// To whom, where, how much.
    pub dice: [u64; 3],
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// How the world is made.
    pub options: Options,
    /// How many clients of the simulation, and how many real ones, are there from the beginning.
    pub clients: (usize, usize),
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What people do.
    pub habits: Vec<Habit>,
    /// When only these servers are there in the end, which those are: the others never come back.
    pub core: Option<Vec<usize>>,
    /// What happens, by time.
    pub acts: Vec<Act>,
}

/// A grace that is over before a world ends, and one that never is.
const GRACE_US: [u64; 2] = [4 * SECOND_US, 3_600 * SECOND_US];

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Plan::drawn(seed, true)
    }

    /// The plan of a seed, in a world that may be known to fail: servers that keep less than was
    /// said, and are cut off from each other meanwhile.
    #[must_use]
    pub fn unrestricted(seed: u64) -> Self {
        Plan::drawn(seed, false)
    }

    fn drawn(seed: u64, restricted: bool) -> Self {
        let draw = Draw::new(seed);
        let pick = |what, many: &[u64]| many[draw.below(what, &[], many.len() as u64) as usize];
        let servers = pick("servers", &[2, 3, 3, 4, 5]) as usize;
        let all = pick("clients", &[2, 3, 4, 5, 6, 8, 10, 12, 20, 30]) as usize;
        let reals = (all as u64 * pick("real", &[0, 25, 50, 75, 100]) / 100) as usize;
        let some = |kinds: usize, what: &str, percent: u64| -> Vec<usize> {
            (0..kinds).filter(|kind| draw.chance(what, &[*kind as u64], percent)).collect()
        };
        let share = pick("share", &[0, 10, 25, 50]);
        let mut faults: Vec<Fault> =
            some(Fault::ALL.len(), "fault", share).into_iter().map(|k| Fault::ALL[k]).collect();
        let mut habits: Vec<Habit> =
            some(Habit::ALL.len(), "habit", 30).into_iter().map(|k| Habit::ALL[k]).collect();
        let short = draw.chance("short grace", &[], 35);
        if !short {
            // Who is gone for good is listed until the grace is over.
            habits.retain(|habit| !matches!(habit, Habit::Quit | Habit::Vanish));
        }
        let all_known = draw.chance("all known", &[], 70);
        if !all_known {
            // Who was given up and knows nobody is not looked for.
            faults.retain(|fault| *fault != Fault::Forget);
        }
        let long = habits.contains(&Habit::Long);
        let trims = long && draw.chance("trims", &[], 40);
        if trims && restricted {
            faults.retain(|fault| !fault.cuts_off());
        }
        let limited = draw.chance("limited", &[], 30);
        let core = draw.chance("core", &[], 20) && !limited && !trims;
        let core = core.then(|| {
            let first = draw.below("core first", &[], servers as u64) as usize;
            let more = |at: &usize| *at != first && draw.chance("core", &[*at as u64], 40);
            let mut core: Vec<usize> = (0..servers).filter(more).chain([first]).collect();
            core.sort_unstable();
            core
        });
        let options = Options {
            servers,
            started: usize::MAX,
            all_known,
            latency_us: (100, pick("jitter", &[200, 200, 2_000, 40_000])),
            persist_us: (20, pick("persist", &[200, 200, 20_000])),
            copies: pick("copies", &[1, 2, 2, 2, 3]) as u8,
            allow_kill: faults.contains(&Fault::Kill),
            loopback: draw.chance("loopback", &[], 80),
            shared_key: draw.chance("shared key", &[], 70),
            limits: limits(draw, short, trims, long, limited.then_some((servers, all))),
        };
        let acts = acts(draw, &faults, &habits);
        Plan { seed, options, clients: (all - reals, reals), faults, habits, core, acts }
    }

    /// Whether who is gone for good is known to be so before the world ends.
    #[must_use]
    pub fn has_short_grace(&self) -> bool {
        self.options.limits.grace_us == GRACE_US[0]
    }

    /// Whether there is not place for all clients everywhere.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.options.limits.users_max < Limits::default().users_max
    }
}

fn limits(
    draw: Draw,
    short: bool,
    trims: bool,
    long: bool,
    limited: Option<(usize, usize)>,
) -> Limits {
    let mut limits = Limits { grace_us: GRACE_US[usize::from(!short)], ..Limits::default() };
    if trims {
        limits.archive_bytes_max = 1 << 20;
        // So few places that starts have to give up theirs.
        limits.origins_max = if draw.chance("few places", &[], 60) { 48 } else { 256 };
    }
    if draw.chance("small log", &[], if long { 60 } else { 10 }) {
        limits.log_bytes_max = 1 << 20;
    }
    if draw.chance("small windows", &[], 25) {
        limits.catch_up_bytes_max = limits.frame_bytes_max;
        limits.queue_bytes_max = limits.frame_bytes_max;
    }
    if draw.chance("few requests", &[], 25) {
        limits.requests_per_second_max = 20;
        limits.unacknowledged_max = 16;
    }
    if draw.chance("few pending", &[], 20) {
        limits.pending_max = 8;
        limits.pending_per_source_max = 4;
    }
    if let Some((servers, clients)) = limited {
        // Place for those who come later, too.
        let all = clients + ARRIVALS_MAX;
        limits.users_max = (all.div_ceil(servers) + 1) as u32;
        limits.users_hard_max = (all + 1) as u32;
    }
    limits
}

/// So many come in later at the most.
pub(crate) const ARRIVALS_MAX: usize = 6;

fn acts(draw: Draw, faults: &[Fault], habits: &[Habit]) -> Vec<Act> {
    let length_ms = 20_000 + draw.below("length", &[], 25_000);
    let count = 60 + draw.below("acts", &[], 160);
    let troubles = if faults.is_empty() { 0 } else { 3 + draw.below("troubles", &[], 25) };
    let at = |number: u64| Act {
        number,
        at_ms: draw.below("at", &[number], length_ms),
        what: What::Talk,
        dice: [0, 1, 2].map(|die| draw.bits("die", &[number, die])),
    };
    let doing = (0..count).map(|number| {
        let now = draw.chance("habitual", &[number], 25) && !habits.is_empty();
        let which = draw.below("which habit", &[number], habits.len().max(1) as u64) as usize;
        let what = if now { What::Habit(habits[which]) } else { What::Talk };
        Act { what, ..at(number) }
    });
    let failing = (count..count + troubles).map(|number| {
        let which = draw.below("which fault", &[number], faults.len() as u64) as usize;
        Act { what: What::Fault(faults[which]), ..at(number) }
    });
    let mut acts: Vec<Act> = doing.chain(failing).collect();
    acts.sort_by_key(|act| (act.at_ms, act.number));
    acts
}
