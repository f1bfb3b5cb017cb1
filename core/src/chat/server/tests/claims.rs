//! Who gets a name: every linked server is asked, and the earliest claim stands.

use alloc::vec::Vec;

use super::hostile::Lone;
use super::peers::{Linkee, session_of, user};
use crate::ids::{Clock, ConnId, SessionId};
use crate::time::{MILLI_US, SECOND_US};
use crate::wire::chat::{Done, SetName};
use crate::wire::peer::{Claim, Presence, Session, Vote};
use crate::wire::{Message, Reason, Seq};

const EVE: &str = "eve";

/// The last claim that a peer was asked about.
fn asked(lone: &Lone, peer: Linkee) -> u64 {
    let claim = lone.last(peer.conn, Claim::KIND).expect("it is asked");
    Claim::parse(&claim).expect("valid").claim
}

fn votes(lone: &mut Lone, peer: Linkee, granted: bool) {
    let claim = asked(lone, peer);
    lone.tell(peer.conn, &Vote { claim, granted });
}

/// A peer asks for a name; whether it is granted.
fn grants(lone: &mut Lone, peer: Linkee, session: u64, name: &str, clock: u64) -> bool {
    let claim = Claim { claim: 7, session: SessionId(session), name, clock: Clock(clock) };
    lone.tell(peer.conn, &claim);
    let vote = lone.last(peer.conn, Vote::KIND).expect("it is answered");
    let vote = Vote::parse(&vote).expect("valid");
    assert_eq!(vote.claim, 7);
    vote.granted
}

#[test]
fn a_name_is_given_when_every_linked_server_has_granted_it() {
    let mut lone = Lone::new();
    let peers = [lone.link(5), lone.link(6)];
    let ada = lone.comes(&user(1, "ada"));
    votes(&mut lone, peers[0], true);
    votes(&mut lone, peers[0], true);
    assert!(!lone.is_attached(ada), "one vote said twice is one");
    votes(&mut lone, peers[1], true);
    assert_eq!(lone.name_of(ada).as_deref(), Some("ada"));
}

#[test]
fn one_denial_is_enough_and_another_name_may_be_tried() {
    let mut lone = Lone::new();
    let peers = [lone.link(5), lone.link(6)];
    let ada = lone.comes(&user(1, "ada"));
    votes(&mut lone, peers[0], false);
    assert_eq!(lone.failure(ada), Some(Reason::NameTaken));
    votes(&mut lone, peers[1], true);
    assert!(!lone.is_attached(ada));
    lone.tell(ada, &user(1, "ida"));
    peers.iter().for_each(|peer| votes(&mut lone, *peer, true));
    assert_eq!(lone.name_of(ada).as_deref(), Some("ida"));
}

#[test]
fn whoever_was_not_asked_has_no_vote() {
    let mut lone = Lone::new();
    let peer = lone.link(5);
    let ada = lone.comes(&user(1, "ada"));
    let claim = asked(&lone, peer);
    let late = lone.link(6);
    lone.tell(late.conn, &Vote { claim, granted: false });
    lone.tell(late.conn, &Vote { claim, granted: true });
    assert!(!lone.is_attached(ada) && lone.failure(ada).is_none());
    lone.tell(peer.conn, &Vote { claim: claim + 1, granted: false });
    lone.tell(peer.conn, &Vote { claim, granted: true });
    assert!(lone.is_attached(ada));
}

#[test]
fn two_claims_at_once_are_two() {
    let mut lone = Lone::new();
    let peer = lone.link(5);
    let ada = lone.comes(&user(1, "ada"));
    let first = asked(&lone, peer);
    let bob = lone.comes(&user(2, "bob"));
    votes(&mut lone, peer, true);
    assert!(lone.is_attached(bob) && !lone.is_attached(ada));
    lone.tell(peer.conn, &Vote { claim: first, granted: true });
    assert_eq!(lone.name_of(ada).as_deref(), Some("ada"));
}

#[test]
fn whoever_does_not_vote_is_waited_for_two_seconds() {
    let mut lone = Lone::new();
    let peer = lone.link(5);
    let ada = lone.comes(&user(1, "ada"));
    lone.pass(2 * SECOND_US - 100 * MILLI_US, &[peer]);
    assert!(!lone.is_attached(ada));
    lone.pass(100 * MILLI_US, &[peer]);
    assert!(lone.is_attached(ada));
}

#[test]
fn a_server_that_is_lost_has_no_vote_any_more() {
    let mut lone = Lone::new();
    let peers = [lone.link(5), lone.link(6)];
    let ada = lone.comes(&user(1, "ada"));
    lone.leaves(peers[0].conn);
    assert!(!lone.is_attached(ada), "the other one has");
    lone.leaves(peers[1].conn);
    assert!(lone.is_attached(ada));
}

#[test]
fn of_two_who_want_a_name_at_once_the_first_has_it_until_it_leaves() {
    let mut lone = Lone::new();
    let peer = lone.link(5);
    let first = lone.comes(&user(1, EVE));
    let other = lone.comes(&user(3, "fay"));
    let second = lone.comes(&user(2, "EVE"));
    assert_eq!(lone.failure(second), Some(Reason::NameTaken));
    lone.leaves(first);
    lone.tell(second, &user(2, EVE));
    votes(&mut lone, peer, true);
    assert_eq!(lone.name_of(second).as_deref(), Some(EVE));
    assert!(!lone.is_attached(other), "whose claim stands, and was not voted on");
    lone.pass(2 * SECOND_US, &[peer]);
    assert!(lone.is_attached(other));
}

#[test]
fn one_that_is_heard_of_meanwhile_stands_against_a_claim_that_all_granted() {
    let mut lone = Lone::new();
    let peer = lone.link(5);
    let eve = lone.comes(&user(1, EVE));
    lone.hears_of(peer, SessionId(9), EVE, Clock(1));
    votes(&mut lone, peer, true);
    assert_eq!(lone.failure(eve), Some(Reason::NameTaken));
}

#[test]
fn a_peer_is_granted_what_is_free_and_denied_what_somebody_has() {
    let mut lone = Lone::new();
    let ada = lone.comes(&user(1, "ada"));
    assert!(lone.is_attached(ada));
    let peer = lone.link(5);
    assert!(!grants(&mut lone, peer, 9, "Ada", 1));
    assert!(grants(&mut lone, peer, session_of(1).0, "ada", 1), "it is her own");
    assert!(grants(&mut lone, peer, 9, EVE, 1));
}

#[test]
fn of_two_claims_of_peers_the_earlier_is_granted_and_kept_for_five_seconds() {
    let mut lone = Lone::new();
    let peers = [lone.link(5), lone.link(6)];
    let [one, other] = peers;
    assert!(grants(&mut lone, one, 9, EVE, 20));
    assert!(!grants(&mut lone, other, 10, EVE, 21), "it came later");
    assert!(!grants(&mut lone, other, 10, EVE, 20), "of two at once the one with the lesser id");
    assert!(grants(&mut lone, other, 9, EVE, 21), "it is the same one");
    assert!(grants(&mut lone, one, 9, EVE, 20));
    assert!(grants(&mut lone, other, 8, EVE, 20), "at once, with a lesser id");
    assert!(grants(&mut lone, other, 7, EVE, 19), "it came earlier");
    let own = lone.comes(&user(1, EVE));
    assert_eq!(lone.failure(own), Some(Reason::NameTaken));
    lone.pass(5 * SECOND_US - 100 * MILLI_US, &peers);
    assert!(!grants(&mut lone, other, 10, EVE, 21));
    lone.pass(100 * MILLI_US, &peers);
    assert!(grants(&mut lone, other, 10, EVE, 21));
}

/// What a peer says of one who claimed a name: that it is there under some name, then gone.
fn came_and_went(lone: &mut Lone, peer: Linkee, session: u64, name: &str, claim: u64) {
    for (version, presence) in [(0, Presence::Online), (1, Presence::Gone)] {
        let record = Session {
            session: SessionId(session),
            name,
            claim: Clock(claim),
            attachment: 1,
            version,
            home: peer.server,
            presence,
            rooms: Seq::default(),
        };
        lone.tell(peer.conn, &record);
    }
}

#[test]
fn a_claim_is_over_once_its_session_is_heard_of_under_that_claim() {
    for (session, claim, is_over) in [(9, 20, true), (9, 21, true), (9, 19, false), (8, 99, false)]
    {
        let mut lone = Lone::new();
        let peer = lone.link(5);
        assert!(grants(&mut lone, peer, 9, EVE, 20));
        came_and_went(&mut lone, peer, session, "fay", claim);
        let granted = grants(&mut lone, peer, 10, EVE, 30);
        assert_eq!(granted, is_over, "session {session}, claim {claim}");
    }
}

#[test]
fn so_many_claims_of_peers_are_remembered_and_no_more() {
    let mut lone = Lone::new();
    let peer = lone.link(5);
    let name = |number: usize| alloc::format!("name{number}");
    for number in 0..=super::super::claims::GRANTS_MAX {
        assert!(grants(&mut lone, peer, 9, &name(number), 20));
    }
    let last = super::super::claims::GRANTS_MAX - 1;
    assert!(!grants(&mut lone, peer, 10, &name(last), 21));
    assert!(grants(&mut lone, peer, 10, &name(last + 1), 21), "it was one too many");
}

#[test]
fn another_name_is_asked_for_as_the_first_one_was() {
    let mut lone = Lone::new();
    let ada = lone.comes(&user(1, "ada"));
    let peer = lone.link(5);
    let renamed = |lone: &mut Lone, request: u64, name: &str, vote: Option<bool>| {
        lone.tell(ada, &SetName { request, name });
        vote.into_iter().for_each(|vote| votes(lone, peer, vote));
        let answers: Vec<(ConnId, u8)> = lone
            .sent
            .iter()
            .filter(|sent| sent.0 == ada && sent.1 == Done::KIND)
            .map(|sent| (sent.0, sent.1))
            .collect();
        answers.len()
    };
    assert_eq!(renamed(&mut lone, 1, "a b", None), 0);
    assert_eq!(lone.failure(ada), Some(Reason::NameInvalid));
    assert_eq!(renamed(&mut lone, 2, "ida", Some(false)), 0);
    assert_eq!(lone.failure(ada), Some(Reason::NameTaken));
    assert_eq!(renamed(&mut lone, 3, "ida", Some(true)), 1);
    assert!(!grants(&mut lone, peer, 9, "ida", 1));
    assert!(grants(&mut lone, peer, 9, "ada", 1), "nobody has the old one");
}
