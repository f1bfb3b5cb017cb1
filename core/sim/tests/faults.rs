//! Random faults: whatever happens, once all is healed everyone agrees and nothing is lost.
#![allow(clippy::print_stdout, reason = "a failing run names its seed")]

use cordee_sim::{Cut, Options, World};

const CLIENTS: usize = 6;

/// One run: five servers, talk, and faults of the kinds that this seed switched on.
fn run(seed: u64) {
    let servers = 2 + (cordee_sim::Draw::new(seed).below("servers", &[], 4) as usize);
    let draw = cordee_sim::Draw::new(seed);
    let options = Options {
        servers,
        shared_key: draw.chance("shared key", &[], 70),
        copies: 1 + draw.below("copies", &[], 3) as u8,
        latency_us: (100, [200, 2_000, 40_000][draw.below("jitter", &[], 3) as usize]),
        persist_us: (20, [200, 20_000][draw.below("persist", &[], 2) as usize]),
        ..Options::default()
    };
    let mut world = World::new(seed, options);
    let kinds: Vec<u64> = (0..6).filter(|kind| draw.chance("kind", &[*kind], 50)).collect();
    println!("seed {seed}: {servers} servers, kinds of fault {kinds:?}");
    let habits: Vec<u64> = (0..6).filter(|habit| draw.chance("habit", &[*habit], 50)).collect();
    world.wait(5_000, "all servers link", World::is_meshed);
    let names: Vec<String> = (0..CLIENTS).map(|client| format!("user{client}")).collect();
    let joining: Vec<(&str, usize)> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), at % servers)).collect();
    let clients = world.join_clients(&joining);
    for step in 0..200_u64 {
        world.run_ms(1 + draw.below("pause", &[step], 100));
        let client = clients[draw.below("who", &[step], CLIENTS as u64) as usize];
        act(&mut world, &habits, client, step);
        if !kinds.is_empty() && draw.chance("fault", &[step], 12) {
            let kind = kinds[draw.below("which", &[step], kinds.len() as u64) as usize];
            fault(&mut world, kind, step, servers as u64);
        }
    }
    let within_grace = world.now().0 < world.server(0).limits().grace_us;
    world.heal_and_judge(30_000);
    for client in clients.iter().filter(|_| within_grace) {
        for name in &names {
            assert_eq!(world.history.departures(*client, name), 0, "{name} came back in time");
        }
    }
}

/// Somebody says something, or does something else that this seed's people do.
fn act(world: &mut World, habits: &[u64], client: usize, step: u64) {
    let draw = world.draw();
    let attached = world.client(client).attached_at().is_some();
    let room = format!("#room{}", draw.below("room", &[step], 3));
    let other = draw.below("other", &[step], CLIENTS as u64) as usize;
    let habit = habits.get(draw.below("habit now", &[step], 12) as usize).copied();
    match habit {
        Some(0) if attached => world.join(client, &room),
        Some(1) if attached => world.leave(client, &room),
        Some(2) => {
            let talk = world.talk(client, other);
            world.say(client, &talk, &format!("{client} to {other}: {step}"));
        }
        Some(3) => world.move_on(client),
        Some(4) if attached => world.reset(client),
        Some(5) if attached => world.ask_status(client),
        _ => {
            let rooms: Vec<String> = world.client(client).speakable().into_iter().collect();
            for more in 0..draw.below("talk", &[step], 3) {
                let room = &rooms[draw.below("where", &[step, more], rooms.len() as u64) as usize];
                world.say(client, room, &format!("{client}: {step}.{more}"));
            }
        }
    }
}

fn fault(world: &mut World, kind: u64, step: u64, servers: u64) {
    let draw = world.draw();
    let a = draw.below("a", &[step], servers) as usize;
    let b = (a + 1 + draw.below("b", &[step], servers - 1) as usize) % servers as usize;
    let up = (0..servers as usize).filter(|node| world.server(*node).is_up()).count();
    match kind {
        0 if world.server(a).is_up() && up > 1 => world.crash(a),
        0 | 1 => {
            if let Some(down) = (0..servers as usize).find(|n| !world.server(*n).is_up()) {
                world.start(down);
            }
        }
        2 => {
            world.freeze(a);
            world.run_ms(draw.below("frozen", &[step], 3_000));
            world.thaw(a);
        }
        3 => world.cut(a, b, Cut::Stall),
        4 => world.cut(a, b, Cut::Reset),
        _ => world.heal(a, b),
    }
}

#[test]
fn whatever_fails_everyone_agrees_in_the_end_and_nothing_acknowledged_is_lost() {
    let seeds = match std::env::var("CORDEE_SEEDS").ok().and_then(|seeds| {
        let (from, to) = seeds.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    }) {
        Some(seeds) => seeds,
        None => 0..30_u64,
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(
            result.is_ok(),
            "seed {seed} failed: CORDEE_SEEDS={seed}..{} cargo test -p cordee-sim --test faults",
            seed + 1
        );
    }
}
