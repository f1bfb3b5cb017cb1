//! Against a listener that plays the server's part.

use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use cordee_core::ids::Origin;
use cordee_core::wire::Seq;
use cordee_core::wire::chat::{Member, UserInfo};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Accepts one connection, checks its hello, then sends `answers`, each after a frame that came, in
/// pieces of `piece` bytes. Keeps the connection until the other side closes it.
fn serve(answers: Vec<Vec<u8>>, piece: usize) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        let mut answers = answers.into_iter();
        let mut bytes = [0; 512];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            deframer.extend(&bytes[..count]);
            let whole = deframer.ready().expect("valid frames");
            for frame in frames(whole) {
                if let Ok(hello) = Hello::parse(frame.payload) {
                    assert_eq!((hello.role, hello.cluster), (Role::Observer, "lab"));
                }
                for part in answers.next().unwrap_or_default().chunks(piece) {
                    // An observer that has what it wants may be gone.
                    let _ = stream.write_all(part);
                }
            }
            let consumed = whole.len();
            deframer.consume(consumed);
        }
    });
    (address, thread)
}

fn bytes<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.put_frame(&mut bytes);
    bytes
}

fn welcome() -> Vec<u8> {
    bytes(&Welcome {
        minor: 0,
        server: ServerId(1),
        origin: Origin::default(),
        cluster_id: Tag([0; 16]),
        address: "10.0.0.1:5000",
        body_bytes_max: 8_192,
        ping_ms: 500,
    })
}

fn status() -> Vec<u8> {
    let member =
        Member { server: ServerId(2), address: "10.0.0.2:5000", state: MemberState::Lost, ma: 3 };
    bytes(&ServerStatus {
        address: "10.0.0.1:5000",
        pid: 77,
        server: ServerId(1),
        incarnation: 2,
        ma: 4,
        digest: Tag([5; 16]),
        from: 1,
        users: 6,
        limit: 100,
        rooms: 7,
        sessions: 8,
        memory_bytes: 9,
        final_clock: Clock(10),
        members: Seq::new(&[member]),
    })
}

fn users(names: &[&str], more: bool) -> Vec<u8> {
    let users: Vec<UserInfo<'_>> = names
        .iter()
        .map(|name| UserInfo {
            session: SessionId(1),
            name,
            online: true,
            server: "10.0.0.1:5000",
            rooms: Seq::new(&["#all"]),
        })
        .collect();
    bytes(&UserList { request: 0, more, users: Seq::new(&users) })
}

fn connect(address: &str) -> Result<Observer, ObserveError> {
    Observer::connect(address, "lab", PATIENCE)
}

#[test]
fn a_report_is_read_whole_however_it_is_cut() {
    for piece in [1, 7, 10_000] {
        let unknown = vec![0, 0, 0, 2, 0xfe, 0];
        let (address, server) = serve(vec![welcome(), [unknown, status()].concat()], piece);
        let mut observer = connect(&address).expect("welcome");
        let report = observer.report(PATIENCE).expect("a report");
        assert_eq!((report.pid, report.ma, report.incarnation), (77, 4, 2));
        let member =
            MemberReport { address: "10.0.0.2:5000".to_owned(), state: MemberState::Lost, ma: 3 };
        assert_eq!(report.members, [member]);
        drop(observer);
        server.join().expect("the server saw what it expected");
    }
}

#[test]
fn a_list_of_users_may_come_in_parts() {
    let answer = [status(), users(&["ada", "bob"], true), users(&["eve"], false)].concat();
    let (address, server) = serve(vec![welcome(), answer], 100);
    let mut observer = connect(&address).expect("welcome");
    let (report, users) = observer.report_with_users(PATIENCE).expect("a report");
    let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!((report.pid, names), (77, vec!["ada", "bob", "eve"]));
    drop(observer);
    server.join().expect("the server saw what it expected");
}

#[test]
fn forgetting_is_done_or_refused() {
    let answer = bytes(&Done { request: 1 });
    let failed = |request| {
        let reason = Reason::MemberUnknown;
        bytes(&Failed { request, say: false, reason, detail: "" })
    };
    let (address, server) = serve(vec![welcome(), answer, [failed(9), failed(2)].concat()], 100);
    let mut observer = connect(&address).expect("welcome");
    observer.forget("10.0.0.2:5000", PATIENCE).expect("done");
    match observer.forget("10.0.0.3:5000", PATIENCE) {
        Err(ObserveError::Refused { reason: Reason::MemberUnknown, .. }) => {}
        other => panic!("{other:?}"),
    }
    drop(observer);
    server.join().expect("the server saw what it expected");
}

#[test]
fn each_way_to_fail_says_what_it_is() {
    let bye = Bye { reason: Reason::WrongCluster, retry_ms: 0, next: "", detail: "it is cordee" };
    let (address, _server) = serve(vec![bytes(&bye)], 100);
    assert_eq!(
        connect(&address).expect_err("refused").to_string(),
        "refused: this server belongs to a cluster of another name: it is cordee"
    );
    let (address, _server) = serve(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], 100);
    assert!(matches!(connect(&address), Err(ObserveError::Wire(WireError::FrameTooLong))));
    let (address, _server) = serve(Vec::new(), 100);
    let soon = Duration::from_millis(20);
    assert!(matches!(Observer::connect(&address, "lab", soon), Err(ObserveError::Timeout)));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let nobody = crate::supervise::ReservedPort::new(any).expect("a free port");
    let address = nobody.address().to_string();
    assert!(matches!(connect(&address), Err(ObserveError::Connect(_))));
    assert!(matches!(connect("no port"), Err(ObserveError::Address(_))));
}

#[test]
fn whoever_waits_for_as_long_as_it_takes_has_a_time_that_a_clock_can_count() {
    let (address, thread) = serve(vec![welcome()], usize::MAX);
    let observer = Observer::connect(&address, "lab", Duration::MAX).expect("it is welcome");
    drop(observer);
    thread.join().expect("no panic");
}

#[test]
fn one_connection_finds_out_whom_it_asks() {
    let welcome_of_blocks = bytes(&BlockWelcome { minor: 0, requests_max: 64 });
    let answer = BlockServerStatus {
        request: 1,
        pid: 77,
        files: 3,
        transfers: 2,
        bytes_sent: 1 << 40,
        connections: 5,
    };
    let (address, server) = serve(vec![welcome_of_blocks, bytes(&answer)], 3);
    let mut observer = Observer::connect(&address, "lab", PATIENCE).expect("it is welcome");
    assert_eq!(observer.service(), Service::Blocks);
    let refused = observer.report(PATIENCE).expect_err("it is no chat server");
    assert!(matches!(refused, ObserveError::Refused { reason: Reason::WrongService, .. }));
    let report = observer.block_report(PATIENCE).expect("it answers");
    assert_eq!((report.pid, report.files, report.transfers), (77, 3, 2));
    assert_eq!((report.bytes_sent, report.connections), (1 << 40, 5));
    drop(observer);
    server.join().expect("it saw nothing wrong");

    let (address, server) = serve(vec![welcome()], 100);
    let mut observer = Observer::connect(&address, "lab", PATIENCE).expect("it is welcome");
    assert_eq!(observer.service(), Service::Chat);
    let refused = observer.block_report(PATIENCE).expect_err("it is no block server");
    assert!(matches!(refused, ObserveError::Refused { reason: Reason::WrongService, .. }));
    drop(observer);
    server.join().expect("it saw nothing wrong");
}
