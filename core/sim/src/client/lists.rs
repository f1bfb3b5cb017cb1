//! Who is there, which rooms there are, and pages of history.

use super::*;

impl Client {
    pub(super) fn on_event(&mut self, frame: Frame<'_>) {
        let payload = frame.payload;
        match frame.kind {
            chat::Arrived::KIND => {
                let arrived: chat::Arrived<'_> = parse(payload);
                let room = arrived.room.to_owned();
                if room.is_empty() {
                    let before = self.roster.get(&arrived.session);
                    assert!(before.is_none(), "{}: {arrived:?} was there: {before:?}", self.name);
                    let rooms = BTreeSet::new();
                    self.roster.insert(arrived.session, (arrived.name.to_owned(), rooms));
                } else if let Some((_, rooms)) = self.roster.get_mut(&arrived.session) {
                    rooms.insert(room.clone());
                }
                self.tell(Happened::Arrived(arrived.name.to_owned(), room));
            }
            chat::Departed::KIND => {
                let departed: chat::Departed<'_> = parse(payload);
                let room = departed.room.to_owned();
                if room.is_empty() {
                    let before = self.roster.remove(&departed.session);
                    assert!(before.is_some(), "{}: {departed:?} was not there", self.name);
                } else if let Some((_, rooms)) = self.roster.get_mut(&departed.session) {
                    rooms.remove(&room);
                }
                self.tell(Happened::Departed(departed.name.to_owned(), room));
            }
            chat::Renamed::KIND => {
                let renamed: chat::Renamed<'_> = parse(payload);
                let record = self.roster.get_mut(&renamed.session);
                let record = record.unwrap_or_else(|| panic!("{}: {renamed:?}", self.name));
                assert_eq!(record.0, renamed.from, "{}: the name before", self.name);
                renamed.to.clone_into(&mut record.0);
                if Some(renamed.session) == self.session {
                    renamed.to.clone_into(&mut self.name);
                }
                let (from, to) = (renamed.from.to_owned(), renamed.to.to_owned());
                self.tell(Happened::Renamed(from, to, renamed.reason));
            }
            chat::RoomMade::KIND => {
                let made: chat::RoomMade<'_> = parse(payload);
                self.tell(Happened::RoomMade(made.room.to_owned()));
            }
            chat::TopicSet::KIND => {
                let set: chat::TopicSet<'_> = parse(payload);
                self.tell(Happened::TopicSet(set.room.to_owned(), set.topic.to_owned()));
            }
            chat::UserList::KIND => self.on_users(&parse(payload)),
            chat::RoomList::KIND => {
                let list: chat::RoomList<'_> = parse(payload);
                self.room_list =
                    list.rooms.iter().map(|r| (r.room.to_owned(), r.users, r.entries)).collect();
            }
            kind => panic!("{}: a frame of kind {kind:#04x}", self.name),
        }
    }

    pub(super) fn on_users(&mut self, list: &chat::UserList<'_>) {
        if list.request == 0 && self.users_parts.is_empty() {
            self.roster.clear();
        }
        for user in list.users {
            let entry = (user.name.to_owned(), user.online, user.server.to_owned());
            self.users_parts.push(entry);
            if list.request == 0 {
                let rooms = user.rooms.iter().map(str::to_owned).collect();
                self.roster.insert(user.session, (user.name.to_owned(), rooms));
            }
        }
        if !list.more {
            self.users = core::mem::take(&mut self.users_parts);
            self.users.sort();
        }
    }

    pub(super) fn on_page(&mut self, page: &chat::Page<'_>) {
        if self.page_request != page.request {
            self.page_request = page.request;
            self.page.clear();
        }
        self.page_total = page.total;
        for entry in page.entries {
            self.page.push((entry.index, entry.body.to_owned()));
        }
    }
}
