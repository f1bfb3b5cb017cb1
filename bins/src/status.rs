//! `cordee status`: how servers stand.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use argh::FromArgs;
use cordee_net::client::MemberState;
use cordee_net::observe::{
    BlockServerReport, ObserveError, Observer, ServerReport, Service, UserReport,
};
use serde_json::{Value, json};

use crate::address::{self, Address};
use crate::chat::escape::{escape, escape_json};
use crate::chat_server::{CLUSTER_DEFAULT, check_cluster};
use crate::failure::{Failure, failed};
use crate::print;

/// Show how servers stand. Of chat servers: their archives, users, members and memory; those with equal
/// digests hold the same. Of block servers: their files and transfers.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help", "help"),
    example = "All servers on this machine:\n  {command_name}\n\
    One elsewhere, for a program:\n  {command_name} 10.0.0.1:5000 --json",
    note = "Exit code 1 when a server that was asked does not answer within two seconds."
)]
pub(crate) struct Status {
    /// host:port (those of 127.0.0.1:5000 to 5004 and 127.0.0.1:4545 that answer)
    #[argh(positional, arg_name = "addr")]
    addresses: Vec<Address>,

    /// address of one server
    #[argh(option, short = 'i', arg_name = "host")]
    address: Option<Address>,

    /// port of one server (5000)
    #[argh(option, short = 'p')]
    port: Option<u16>,

    /// name of the cluster of chat servers (cordee)
    #[argh(option, default = "CLUSTER_DEFAULT.to_owned()", arg_name = "name")]
    cluster: String,

    /// list the users of the cluster, too
    #[argh(switch)]
    users: bool,

    /// print one JSON object a line for each server
    #[argh(switch)]
    json: bool,
}

type Answer = Result<Standing, ObserveError>;

/// How a server stands.
enum Standing {
    Chat(Box<ServerReport>, Option<Vec<UserReport>>),
    Blocks(BlockServerReport),
}

/// Asks all at once and prints the answers in the order in which they were asked for.
pub(crate) fn run(args: &Status) -> Result<(), Failure> {
    check_cluster(&args.cluster)?;
    let asked = address::servers(&args.addresses, args.address.as_ref(), args.port)?;
    let told = !asked.is_empty();
    let asked = if told { asked } else { address::all_default_servers() };
    let mut answers: Vec<(&str, Answer)> = thread::scope(|scope| {
        let ask = |address| scope.spawn(move || ask(address, &args.cluster, args.users));
        let asking: Vec<_> = asked.iter().map(|address| (address, ask(address))).collect();
        let answers = asking.into_iter().map(|(address, thread)| {
            let broken = |_| Err(ObserveError::Broken(std::io::Error::other("asking failed")));
            (address.as_str(), thread.join().unwrap_or_else(broken))
        });
        answers.collect()
    });
    if !told {
        answers.retain(|(_, answer)| !matches!(answer, Err(ObserveError::Connect(_))));
        if answers.is_empty() {
            return Err(failed(
                "no server answers at 127.0.0.1:5000 to 5004 or 127.0.0.1:4545: start some with \
                 cordee up, or give an address",
            ));
        }
    }
    let silent = answers.iter().any(|(_, answer)| answer.is_err());
    print_answers(&answers, args.json)
        .map_err(|error| failed(format!("standard output: {error}")))?;
    if silent { Err(Failure::Told) } else { Ok(()) }
}

fn ask(address: &str, cluster: &str, users: bool) -> Answer {
    let mut observer = Observer::connect(address, cluster, PATIENCE)?;
    Ok(match (observer.service(), users) {
        (Service::Blocks, _) => Standing::Blocks(observer.block_report(PATIENCE)?),
        (Service::Chat, false) => Standing::Chat(Box::new(observer.report(PATIENCE)?), None),
        (Service::Chat, true) => {
            let (report, users) = observer.report_with_users(PATIENCE)?;
            Standing::Chat(Box::new(report), Some(users))
        }
    })
}

fn print_answers(answers: &[(&str, Answer)], json: bool) -> std::io::Result<()> {
    let mut users_shown = false;
    for (address, answer) in answers {
        match (answer, json) {
            (Ok(Standing::Blocks(report)), true) => {
                let object = block_report_json(address, report).to_string();
                print::line(escape_json(&object))?;
            }
            (Ok(Standing::Blocks(report)), false) => {
                print::line(block_report_text(address, report))?;
            }
            (Ok(Standing::Chat(report, users)), true) => {
                let object = report_json(report, users.as_deref()).to_string();
                print::line(escape_json(&object))?;
            }
            (Ok(Standing::Chat(report, users)), false) => {
                print::line(report_text(report))?;
                if let Some(users) = users
                    && !std::mem::replace(&mut users_shown, true)
                {
                    print::line(users_text(users))?;
                }
            }
            (Err(error), true) => {
                let object = json!({"error": error.to_string(), "address": address}).to_string();
                print::line(escape_json(&object))?;
            }
            (Err(error), false) => print::note(format_args!("{address}: {error}")),
        }
    }
    Ok(())
}

/// One object, documented in `docs/blocks.md`; members are only ever added.
fn block_report_json(address: &str, report: &BlockServerReport) -> Value {
    json!({
        "role": "block-server",
        "address": address,
        "pid": report.pid,
        "files": report.files,
        "transfers": report.transfers,
        "bytes_sent": report.bytes_sent,
        "connections": report.connections,
    })
}

fn block_report_text(address: &str, report: &BlockServerReport) -> String {
    format!(
        "block server {}, process {}\n  files    {}\n  sending  {} transfers, {} connections\n  sent     \
         {:.1} MB",
        escape(address),
        report.pid,
        report.files,
        report.transfers,
        report.connections,
        report.bytes_sent as f64 / 1e6
    )
}

/// One object, documented in `docs/chat.md`; members are only ever added.
fn report_json(report: &ServerReport, users: Option<&[UserReport]>) -> Value {
    let members = report.members.iter().map(|member| {
        json!({
            "address": member.address,
            "state": state_word(member.state),
            "ma": member.ma,
        })
    });
    let mut object = json!({
        "role": "chat-server",
        "address": report.address,
        "pid": report.pid,
        "id": report.server.to_string(),
        "incarnation": report.incarnation,
        "ma": report.ma,
        "digest": report.digest.to_string(),
        "from": report.from,
        "users": report.users,
        "limit": report.limit,
        "rooms": report.rooms,
        "sessions": report.sessions,
        "memory_bytes": report.memory_bytes,
        "members": members.collect::<Vec<_>>(),
    });
    if let Some(users) = users {
        let list = users.iter().map(|user| {
            json!({
                "name": user.name,
                "online": user.online,
                "server": user.server,
                "rooms": user.rooms,
            })
        });
        object["user_list"] = list.collect();
    }
    object
}

fn report_text(report: &ServerReport) -> String {
    let mut text = format!(
        "chat server {}, process {}, id {}, start {}\n  archive  {} messages, digest {}",
        escape(&report.address),
        report.pid,
        report.server,
        report.incarnation,
        report.ma,
        report.digest
    );
    // Writing to a string never fails.
    if report.from > 1 {
        let _ = write!(text, ", bodies from message {} on", report.from);
    }
    let _ = write!(
        text,
        "\n  users    {} here (limit {}), {} sessions and {} rooms in the cluster\n  memory   {:.1} \
         MB\n  members ",
        report.users,
        report.limit,
        report.sessions,
        report.rooms,
        report.memory_bytes as f64 / 1e6
    );
    for member in &report.members {
        let (address, state) = (escape(&member.address), state_word(member.state));
        let _ = write!(text, " {address} {state} {};", member.ma);
    }
    text.trim_end_matches(';').to_owned()
}

fn users_text(users: &[UserReport]) -> String {
    let mut text = String::from("users of the cluster");
    for user in users {
        let state = if user.online { "online" } else { "away" };
        let rooms = user.rooms.join(" ");
        let _ = write!(
            text,
            "\n  {:<20} {state:<6} {} {}",
            escape(&user.name),
            escape(&user.server),
            escape(&rooms)
        );
    }
    text
}

/// The word for a state in JSON and on the screen.
pub(crate) fn state_word(state: MemberState) -> &'static str {
    match state {
        MemberState::Linked => "linked",
        MemberState::Lost => "lost",
        MemberState::Left => "left",
        MemberState::Forgotten => "forgotten",
    }
}

/// For connecting, and again for the answer.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use cordee_core::ids::{Clock, ServerId, SessionId, Tag};
    use cordee_net::observe::MemberReport;

    use super::*;

    fn report() -> ServerReport {
        ServerReport {
            address: "127.0.0.1:5000".to_owned(),
            pid: 42,
            server: ServerId(0xab),
            incarnation: 2,
            ma: 3,
            digest: Tag([1; 16]),
            from: 1,
            users: 1,
            limit: 100,
            rooms: 2,
            sessions: 4,
            memory_bytes: 1_500_000,
            final_clock: Clock(0),
            members: vec![MemberReport {
                address: "127.0.0.1:5001".to_owned(),
                state: MemberState::Lost,
                ma: 2,
            }],
        }
    }

    #[test]
    fn the_json_line_is_the_documented_one() {
        assert_eq!(
            report_json(&report(), None).to_string(),
            concat!(
                r#"{"role":"chat-server","address":"127.0.0.1:5000","pid":42,"#,
                r#""id":"00000000000000ab","incarnation":2,"ma":3,"#,
                r#""digest":"01010101010101010101010101010101","from":1,"users":1,"limit":100,"#,
                r#""rooms":2,"sessions":4,"memory_bytes":1500000,"#,
                r#""members":[{"address":"127.0.0.1:5001","state":"lost","ma":2}]}"#
            )
        );
        let user = UserReport {
            name: "ada".to_owned(),
            session: SessionId(1),
            online: true,
            server: "127.0.0.1:5000".to_owned(),
            rooms: vec!["#all".to_owned()],
        };
        let with_users = report_json(&report(), Some(&[user])).to_string();
        assert!(with_users.ends_with(
            r##""user_list":[{"name":"ada","online":true,"server":"127.0.0.1:5000","rooms":["#all"]}]}"##
        ));
    }

    #[test]
    fn a_block_server_is_shown_as_documented() {
        let report = BlockServerReport {
            pid: 42,
            files: 3,
            transfers: 2,
            bytes_sent: 1_500_000,
            connections: 4,
        };
        assert_eq!(
            block_report_json("127.0.0.1:4545", &report).to_string(),
            concat!(
                r#"{"role":"block-server","address":"127.0.0.1:4545","pid":42,"files":3,"#,
                r#""transfers":2,"bytes_sent":1500000,"connections":4}"#
            )
        );
        assert_eq!(
            block_report_text("127.0.0.1:4545", &report),
            "block server 127.0.0.1:4545, process 42\n  files    3\n  sending  2 transfers, 4 \
             connections\n  sent     1.5 MB"
        );
    }

    #[test]
    fn people_read_the_same() {
        assert_eq!(
            report_text(&report()),
            "chat server 127.0.0.1:5000, process 42, id 00000000000000ab, start 2\n  archive  3 \
             messages, digest 01010101010101010101010101010101\n  users    1 here (limit 100), 4 \
             sessions and 2 rooms in the cluster\n  memory   1.5 MB\n  members  127.0.0.1:5001 \
             lost 2"
        );
    }
}
