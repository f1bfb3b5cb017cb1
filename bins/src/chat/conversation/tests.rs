//! Of the state alone; with a client it is tried end to end.

use super::*;

fn state() -> State {
    State::new("ada", true, Target::Room("#all".to_owned()))
}

fn reference(command: &Command) -> u64 {
    match command {
        Command::Say { reference, .. } | Command::Join { reference, .. } => *reference,
        other => panic!("{other:?}"),
    }
}

fn say(state: &mut State, tag: Option<Value>) -> Command {
    let request = Request::Say { to: None, body: "x".to_owned() };
    state.command(request, tag).expect("it makes sense")
}

fn target(command: Command) -> Target {
    match command {
        Command::Say { to, .. } => to,
        other => panic!("{other:?}"),
    }
}

fn join(state: &mut State, room: &str) -> u64 {
    reference(&state.command(Request::Join(room.to_owned()), None).expect("it makes sense"))
}

fn room(name: &str) -> Target {
    Target::Room(name.to_owned())
}

fn error(reference: u64, reason: Reason) -> Event {
    Event::Error { reference, reason, text: String::new() }
}

#[test]
fn an_answer_brings_back_the_reference_once() {
    let mut state = state();
    let first = reference(&say(&mut state, Some("a".into())));
    let second = reference(&say(&mut state, None));
    let third = reference(&say(&mut state, Some("c".into())));
    assert_eq!(state.heard(&error(third, Reason::BodyEmpty)).reference, Some("c".into()));
    assert_eq!(state.heard(&error(second, Reason::BodyEmpty)).reference, None);
    assert_eq!(state.heard(&Event::Done { reference: first }).reference, Some("a".into()));
    assert_eq!(state.heard(&Event::Done { reference: first }).reference, None);
    assert!(state.open.is_empty());
}

#[test]
fn what_is_said_after_joining_goes_to_the_room() {
    let mut state = state();
    let reference = join(&mut state, "#Ops");
    assert_eq!(target(say(&mut state, None)), room("#Ops"));
    let joined = Event::Joined { room: "#ops".to_owned(), topic: String::new(), reference };
    state.heard(&joined);
    assert_eq!(target(say(&mut state, None)), room("#ops"));
    assert!(state.rooms.contains("#ops"));
    state.heard(&Event::Left { room: "#ops".to_owned(), reference: 9 });
    assert_eq!(state.current, room("#all"));
}

#[test]
fn what_is_said_after_leaving_goes_to_the_common_room() {
    let mut state = state();
    join(&mut state, "#ops");
    let leave = state.command(Request::Leave(None), None).expect("it makes sense");
    assert_eq!(target(say(&mut state, None)), room("#all"), "though the answer is not here yet");
    let Command::Leave { reference, .. } = leave else { panic!("{leave:?}") };
    state.heard(&error(reference, Reason::NotMember));
    assert_eq!(state.current, room("#ops"));
    state.command(Request::Leave(Some("#other".to_owned())), None).expect("it makes sense");
    assert_eq!(state.current, room("#ops"), "that was another one");
}

#[test]
fn what_is_no_room_is_refused_before_anything_is_meant_for_it() {
    let mut state = state();
    let refused = state.command(Request::Join("#bad!".to_owned()), None).expect_err("no room");
    assert!(matches!(refused, Refused::Senseless(Reason::RoomInvalid, _)));
    assert_eq!(target(say(&mut state, None)), room("#all"));
}

#[test]
fn requests_without_an_answer_of_their_own_are_told_when_they_are_done() {
    let mut state = state();
    let connected = || Event::Connected {
        server: "127.0.0.1:5000".to_owned(),
        servers: Vec::new(),
        name: "ada".to_owned(),
        rooms: Vec::new(),
        attachment: 1,
    };
    state.command(Request::Name("ada".to_owned()), Some(1.into())).expect("it makes sense");
    state.command(Request::Reset, Some(2.into())).expect("it makes sense");
    assert_eq!(state.heard(&connected()).done, [Value::from(1)]);
    assert_eq!(state.heard(&connected()).done, [] as [Value; 0]);
    assert_eq!(state.heard(&Event::CaughtUp { room: None }).done, [Value::from(2)]);
    assert!(state.open.is_empty());
}

#[test]
fn a_join_that_fails_leads_back() {
    let mut state = state();
    let reference = join(&mut state, "#ops");
    state.heard(&error(reference, Reason::TooManyRooms));
    assert_eq!(state.current, room("#all"));
    let reference = join(&mut state, "#ops");
    state.current = Target::User("bob".to_owned());
    state.heard(&error(reference, Reason::TooManyRooms));
    assert_eq!(state.current, Target::User("bob".to_owned()), "the user has gone on since");
}

#[test]
fn a_talk_follows_its_person_to_another_name_and_has_no_topic() {
    let mut state = state();
    state.current = Target::User("bob".to_owned());
    let (from, to) = ("bob".to_owned(), "robert".to_owned());
    state.heard(&Event::Renamed { from, to, own: false, why: None });
    assert_eq!(state.current, Target::User("robert".to_owned()));
    for request in [Request::Topic("x".to_owned()), Request::Leave(None)] {
        let refused = state.command(request, None).expect_err("not in a talk");
        assert!(matches!(refused, Refused::Senseless(Reason::BadRequest, _)));
    }
}

#[test]
fn a_name_is_wanted_only_while_nobody_let_the_user_in() {
    let mut state = state();
    assert!(!state.wants_name);
    state.heard(&error(0, Reason::NameTaken));
    assert!(state.wants_name);
    state.command(Request::Name("bob".to_owned()), None).expect("it makes sense");
    assert!(!state.wants_name);
    state.heard(&Event::Connected {
        server: "127.0.0.1:5000".to_owned(),
        servers: Vec::new(),
        name: "bob".to_owned(),
        rooms: Vec::new(),
        attachment: 1,
    });
    assert_eq!((state.name.as_str(), state.server.is_some()), ("bob", true));
    assert!(state.open.is_empty(), "the connection is the answer");
    state.heard(&error(7, Reason::NameTaken));
    assert!(!state.wants_name, "another name was refused, this one stays");
}

#[test]
fn a_name_that_nobody_chose_gets_numbers_until_there_are_none_left() {
    let mut state = State::new("ada", false, room("#all"));
    for number in 2..NAMES_MORE_MAX + 2 {
        let heard = state.heard(&error(0, Reason::NameTaken));
        assert_eq!((heard.next_name, state.wants_name), (Some(format!("ada-{number}")), false));
    }
    assert_eq!(state.heard(&error(0, Reason::NameTaken)).next_name, None);
    assert!(state.wants_name);
}

#[test]
fn who_leaves_with_nothing_to_wait_for_and_nobody_there_does_not_wait() {
    let begun = Instant::now();
    let nobody = error(0, Reason::Unreachable);
    let mut state = state();
    assert!(!state.is_hopeless(begun), "a server may answer yet");
    state.heard(&nobody);
    assert!(state.is_hopeless(begun));
    let said = reference(&say(&mut state, None));
    assert!(!state.is_hopeless(begun), "this is worth a wait");
    state.heard(&error(said, Reason::BodyTooLong));
    assert!(state.is_hopeless(begun));
    state.command(Request::Users, None).expect("it makes sense");
    assert!(!state.is_hopeless(begun), "and so is a question");

    let mut state = super::tests::state();
    state.heard(&nobody);
    let (server, name) = ("127.0.0.1:5000".to_owned(), "ada".to_owned());
    let servers = vec![server.clone()];
    let connected = Event::Connected {
        server: server.clone(),
        servers,
        name,
        rooms: Vec::new(),
        attachment: 1,
    };
    state.heard(&connected);
    assert!(!state.is_hopeless(begun), "the server says goodbye");
    state.heard(&Event::Disconnected { server, why: Reason::Ended });
    assert!(!state.is_hopeless(begun), "another one may answer");
    state.heard(&nobody);
    assert!(state.is_hopeless(begun));
}
