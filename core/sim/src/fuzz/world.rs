//! A whole world, driven by a list of operations: once it is healed, everyone agrees, and nothing
//! that was acknowledged is lost.

use arbitrary::{Result, Unstructured};

use crate::world::{Cut, Options, World};

const CLIENTS: usize = 4;
const OPERATIONS_MAX: usize = 80;
const PAUSES_MS: [u64; 8] = [1, 3, 10, 40, 150, 600, 2_000, 7_000];

/// The first four bytes: servers (2 to 4), copies (1 to 3), latency, storage. Then a list of
/// operations, one byte each and one for each of its arguments:
///
/// | byte modulo 16 | operation, arguments |
/// | --- | --- |
/// | 0 to 3 | somebody says something: client, room |
/// | 4 | time: how long |
/// | 5 | somebody says something to somebody: client, client |
/// | 6 | somebody joins or leaves a room: client, room |
/// | 7 | somebody moves on, resets, or asks for the status: client, which |
/// | 8 | a server dies, or the one that is down starts: server |
/// | 9 | a server stands still for a while: server, how long |
/// | 10, 11 | two servers are cut off: first, second, how |
/// | 12 | two servers heal: first, second |
/// | 13 | a client reads no more, or again: client |
/// | 14, 15 | time: how long |
pub fn world(data: &[u8]) {
    let mut random = Unstructured::new(data);
    let Ok(options) = options(&mut random) else { return };
    let servers = options.servers;
    let mut world = World::new(data.first().copied().unwrap_or(0).into(), options);
    world.wait(5_000, "all servers link", World::is_meshed);
    let names: Vec<String> = (0..CLIENTS).map(|client| format!("user{client}")).collect();
    let joining: Vec<(&str, usize)> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), at % servers)).collect();
    let mut run = Run {
        clients: world.join_clients(&joining),
        reads: [true; CLIENTS],
        said: 0,
        servers,
        world,
    };
    for _ in 0..OPERATIONS_MAX {
        if random.is_empty() || run.operate(&mut random).is_err() {
            break;
        }
        run.world.check_all();
    }
    for client in run.clients.clone() {
        run.world.set_reading(client, true);
    }
    run.world.heal_and_judge(30_000);
}

fn options(random: &mut Unstructured<'_>) -> Result<Options> {
    Ok(Options {
        servers: random.int_in_range(2..=4)?,
        copies: random.int_in_range(1..=3)?,
        latency_us: (100, [200, 2_000, 40_000][random.choose_index(3)?]),
        persist_us: (20, [200, 20_000][random.choose_index(2)?]),
        ..Options::default()
    })
}

struct Run {
    world: World,
    servers: usize,
    clients: Vec<usize>,
    reads: [bool; CLIENTS],
    said: u32,
}

impl Run {
    fn operate(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        match random.arbitrary::<u8>()? % 16 {
            0..=3 => {
                let client = self.some_client(random)?;
                let which = usize::from(random.arbitrary::<u8>()?);
                let rooms: Vec<String> =
                    self.world.client(client).speakable().into_iter().collect();
                self.said += 1;
                self.world.say(
                    client,
                    &rooms[which % rooms.len()],
                    &format!("{client}: {}", self.said),
                );
            }
            5 => {
                let (client, other) = (self.some_client(random)?, self.some_client(random)?);
                let talk = self.world.talk(client, other);
                self.said += 1;
                self.world.say(client, &talk, &format!("{client} to {other}: {}", self.said));
            }
            6 => {
                let client = self.some_client(random)?;
                let which = random.arbitrary::<u8>()? % 4;
                let room = ["#a", "#b"][usize::from(which / 2)];
                match self.world.client(client).attached_at() {
                    Some(_) if which % 2 == 0 => self.world.join(client, room),
                    Some(_) => self.world.leave(client, room),
                    None => {}
                }
            }
            7 => {
                let client = self.some_client(random)?;
                let attached = self.world.client(client).attached_at().is_some();
                match random.arbitrary::<u8>()? % 3 {
                    0 => self.world.move_on(client),
                    1 if attached => self.world.reset(client),
                    _ if attached => self.world.ask_status(client),
                    _ => {}
                }
            }
            8 => {
                let server = random.choose_index(self.servers)?;
                let up = |server: &usize| self.world.server(*server).is_up();
                match (0..self.servers).find(|server| !up(server)) {
                    Some(down) => self.world.start(down),
                    None => self.world.crash(server),
                }
            }
            9 => {
                let server = random.choose_index(self.servers)?;
                let ms = PAUSES_MS[random.choose_index(PAUSES_MS.len())?];
                if self.world.server(server).is_up() {
                    self.world.freeze(server);
                    self.world.run_ms(ms);
                    self.world.thaw(server);
                }
            }
            10 | 11 => {
                let (a, b) = self.two_servers(random)?;
                let how = [Cut::Stall, Cut::Reset][random.choose_index(2)?];
                self.world.cut(a, b, how);
            }
            12 => {
                let (a, b) = self.two_servers(random)?;
                self.world.heal(a, b);
            }
            13 => {
                let at = random.choose_index(CLIENTS)?;
                self.reads[at] = !self.reads[at];
                self.world.set_reading(self.clients[at], self.reads[at]);
            }
            _ => self.world.run_ms(PAUSES_MS[random.choose_index(PAUSES_MS.len())?]),
        }
        Ok(())
    }

    fn some_client(&self, random: &mut Unstructured<'_>) -> Result<usize> {
        Ok(self.clients[random.choose_index(CLIENTS)?])
    }

    fn two_servers(&self, random: &mut Unstructured<'_>) -> Result<(usize, usize)> {
        let a = random.choose_index(self.servers)?;
        let b = (a + 1 + random.choose_index(self.servers - 1)?) % self.servers;
        Ok((a, b))
    }
}
