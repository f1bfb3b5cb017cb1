//! Deliberate faults, one at a time, to prove that the simulator finds what it should.
//!
//! Only with the feature `planted`, which is for the simulator alone; without it a place for a
//! fault is the constant `false`. A fault holds on the thread that planted it.

/// Whether a fault is planted here.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($fault:ident) => {
        $crate::planted::is_planted($crate::planted::Planted::$fault)
    };
}
/// Without the feature no fault is.
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($fault:ident) => {
        false
    };
}
#[cfg(feature = "planted")]
mod switch {
    use core::cell::Cell;

    std::thread_local! {
        static NOW: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Plants a fault on this thread, in place of any other; or none.
    pub fn plant(fault: Option<Planted>) {
        NOW.set(fault);
    }

    pub(crate) fn is_planted(fault: Planted) -> bool {
        NOW.get() == Some(fault)
    }

    /// Declares the faults and what each does wrong.
    macro_rules! faults {
        ($($(#[doc = $says:literal])+ $fault:ident,)+) => {
            /// A deliberate fault.
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub enum Planted { $($(#[doc = $says])+ $fault,)+ }

            impl Planted {
                /// All of them.
                pub const ALL: &[Planted] = &[$(Planted::$fault,)+];

                /// What it does wrong.
                #[must_use]
                pub const fn says(self) -> &'static str {
                    match self { $(Planted::$fault => concat!($($says),+),)+ }
                }
            }
        };
    }

    faults! {
        /// a message is acknowledged before it is stored
        AckBeforeStored,
        /// an acknowledgement counts one copy too many
        CopyTooMany,
        /// a message is acknowledged with one copy less than is wanted
        CopyTooFew,
        /// an acknowledgement is for the message after
        AckNext,
        /// what a server sent counts as stored there
        TrustSender,
        /// another copy of a message is taken for another message
        ForgetDuplicate,
        /// what is asked for begins one entry too late
        PullTooLate,
        /// nobody asks for what it lacks
        NoPull,
        /// what is lacking is asked for from the server alone that wrote it
        PullFromOrigin,
        /// what was asked for is asked for again and again
        PullAgain,
        /// a server that links sends its whole log
        PushAll,
        /// a server that starts again goes on under the origin that it had
        ReuseOrigin,
        /// an entry is shown whether or not what it comes after was
        IgnoreCause,
        /// what clients hand back is dropped
        LoseHandBack,
        /// a name is given without asking the other servers
        NameUnasked,
        /// a name is given to another while its holder is away
        NameOfAway,
        /// of two claims of a name the one stays that came first
        ClaimByArrival,
        /// a name that is gone is kept for who had it
        NameKept,
        /// rows of a room that is joined count twice in MT
        MtTwice,
        /// one newcomer more than the limit is admitted
        AdmitOneMore,
        /// a newcomer is sent elsewhere without a place there
        NoReservation,
        /// who sees a departure does not say so
        SilentDeparture,
        /// users are given up before the grace is over
        ShortGrace,
        /// a talk is shown to whoever is there
        TalkToAll,
        /// silence is measured on the wall clock
        WallInTimer,
        /// entries are stamped below a clock that was announced
        StampBelow,
        /// a clock is taken for final before all below it is there
        FinalTooEarly,
        /// a room's archive is not sent to who joins it
        NoBackfill,
        /// who resumes is taken to have seen one entry more of each origin
        ResumeTooFar,
        /// a room that was left is shown still
        ShowLeft,
        /// the floor of what was trimmed counts one row too many
        FloorOffByOne,
        /// who fell behind the log is not told, and gets no more
        LagUnnoticed,
        /// rooms of other servers are not taken in
        RoomUnheard,
        /// a server that a session left keeps it
        KeepSuperseded,
        /// a server that left is never looked for again
        LeftForEver,
        /// a statement about a session is told two hundred times
        Chatter,
        /// a deadline does not move when it fires
        DeadlineStays,
        /// a client does not say again what the next server lacks
        NoResend,
        /// a client shows a message again when it comes again
        ShowAgain,
        /// a client in a room that it joined takes what comes live for all there is
        SkipPartial,
    }
}
#[cfg(feature = "planted")]
pub(crate) use switch::is_planted;
#[cfg(feature = "planted")]
pub use switch::{Planted, plant};
