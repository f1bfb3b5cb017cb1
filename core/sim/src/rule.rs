//! What must hold, by name, and how often each was looked at: a rule that never was proves nothing.

/// Declares the rules: a name here, the code that failures begin with, and what it says.
macro_rules! rules {
    ($($(#[doc = $says:literal])+ $name:ident = $code:literal,)+) => {
        /// Something that must hold in every world.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Rule {
            $($(#[doc = $says])+ $name,)+
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Rule] = &[$(Rule::$name,)+];

            /// What a failure of it begins with.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Rule::$name => $code,)+ }
            }

            /// What it says.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self { $(Rule::$name => concat!($($says),+),)+ }
            }
        }
    };
}

rules! {
    /// a place in an origin means the same bytes everywhere, for ever
    Fork = "A1",
    /// a server stores an origin without a gap, and what is stored was said
    Gap = "A2",
    /// what is acknowledged was stored by as many servers as was said
    Copies = "A3",
    /// in a cluster without faults, as many hold it as were wanted
    Wanted = "A3 wanted",
    /// what was acknowledged, and one holder kept, is on every server in the end
    Kept = "A3 kept",
    /// acknowledgements come in the order of the messages
    InOrder = "A3 order",
    /// a message is one row on a screen, however often it was sent
    Once = "A4",
    /// an author's messages are shown in their order
    Author = "A5",
    /// nobody sees an answer before its question
    Cause = "A6",
    /// what is shown is what was said, where it was said
    Genuine = "A8 genuine",
    /// servers that were left in peace hold the same, in one order
    Converged = "A7",
    /// MT is at most MA, and equal for whoever has drained
    Counts = "A8",
    /// MA and MT are what an own count gives, and what the client holds
    OwnCount = "A8 count",
    /// an index that was called final stays that message's
    Final = "A9",
    /// repair is silent once all hold the same
    Silent = "A12 silent",
    /// what is sent again is about what was missing
    Resent = "A12",
    /// in a cluster without faults nobody loses a name that was given to him
    Asked = "N1",
    /// one name, one user, as soon as the cluster is calm
    Names = "N2",
    /// everybody's list of users is who is there, by the name that they know of
    Roster = "N2 list",
    /// a name is free again once its holder is gone for good
    Freed = "N3",
    /// nobody is said to have left before the grace is over
    Grace = "N3 grace",
    /// who is gone for good is said to have left
    Departed = "N3 gone",
    /// room lists are the same everywhere, with as many members as there are
    Rooms = "C1",
    /// newcomers stay within the limit, all users within the hard one
    Limit = "R1",
    /// who is sent elsewhere has a place there first
    Reserved = "R2",
    /// everybody gets in once the cluster is healed, or calm for long enough
    GetsIn = "R3",
    /// a talk is shown to its two alone
    Talk = "direct",
    /// a machine's own invariants
    Machine = "machine",
    /// one input has a bounded number of effects
    Effects = "X4",
    /// a deadline that is due fires or moves
    Deadline = "X2",
    /// a server tells a client nothing that cannot be
    Wire = "wire",
    /// what was ordered in a world is done within a bound of its time
    Live = "live",
}

/// How often each rule was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally([u64; Rule::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Tally([0; Rule::ALL.len()])
    }
}

impl Tally {
    /// A rule was looked at.
    pub fn saw(&mut self, rule: Rule) {
        self.0[rule as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn of(&self, rule: Rule) -> u64 {
        self.0[rule as usize]
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Tally) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

/// Looks at a rule: counts, and panics with its code when it is broken.
macro_rules! holds {
    ($tally:expr, $rule:ident, $holds:expr, $($text:tt)+) => {
        $tally.saw($crate::rule::Rule::$rule);
        assert!(
            $holds,
            "{}: {}",
            $crate::rule::Rule::$rule.code(),
            format_args!($($text)+)
        );
    };
}
pub(crate) use holds;
