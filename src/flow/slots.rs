//! Flows by number, and the numbers that sockets and deadlines are known by.
//!
//! A number is given again after its flow has gone, but with another generation: an event that was on
//! its way meanwhile finds nothing.

/// What an event or a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The port itself: its TUN, its alarm, its bell.
    Port,
    Udp,
    Echo,
    Tcp,
}

impl Token {
    pub const fn of_port(number: u8) -> Self {
        Self(number as u64)
    }

    const fn new(kind: Kind, generation: u32, place: u32) -> Self {
        let generation = (generation & 0xff_ffff) as u64;
        Self((kind as u64) << 56 | generation << 32 | place as u64)
    }

    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    pub const fn number(self) -> u64 {
        self.0
    }

    pub const fn kind(self) -> Kind {
        match self.0 >> 56 {
            1 => Kind::Udp,
            2 => Kind::Echo,
            3 => Kind::Tcp,
            _ => Kind::Port,
        }
    }

    const fn place(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }
}

#[cfg(test)]
thread_local! {
    /// How often a place was looked at on this thread: those of idle flows are not.
    pub static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Things of one kind, by their tokens.
#[derive(Debug)]
pub struct Slots<T> {
    kind: Kind,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    thing: Option<T>,
}

impl<T> Slots<T> {
    pub const fn new(kind: Kind) -> Self {
        Self { kind, slots: Vec::new(), free: Vec::new() }
    }

    /// Keeps what `make` makes, which is given its token; nothing if that fails.
    ///
    /// # Errors
    /// What `make` says.
    pub fn try_insert<E>(&mut self, make: impl FnOnce(Token) -> Result<T, E>) -> Result<Token, E> {
        let place = match self.free.last() {
            Some(&place) => place,
            // Lossless: flows are bounded far below.
            None => self.slots.len() as u32,
        };
        let generation = self.slots.get(place as usize).map_or(0, |slot| slot.generation);
        let token = Token::new(self.kind, generation, place);
        let thing = Some(make(token)?);
        match self.free.pop() {
            Some(place) => self.slots[place as usize].thing = thing,
            None => self.slots.push(Slot { generation, thing }),
        }
        Ok(token)
    }

    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        let slot = self.slots.get_mut(token.place())?;
        (Token::new(self.kind, slot.generation, token.place() as u32) == token)
            .then_some(slot.thing.as_mut())?
    }

    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.get_mut(token)?;
        let slot = self.slots.get_mut(token.place())?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(token.place() as u32);
        slot.thing.take()
    }

    /// Leaves nothing.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.free.clear();
        self.slots.drain(..).filter_map(|slot| slot.thing)
    }

    pub fn for_each(&mut self, action: impl FnMut(&mut T)) {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + self.slots.len());
        self.slots.iter_mut().filter_map(|slot| slot.thing.as_mut()).for_each(action);
    }

    /// The tokens of those that `is_wanted`.
    pub fn find(&self, mut is_wanted: impl FnMut(&T) -> bool) -> Vec<Token> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + self.slots.len());
        let places = self.slots.iter().enumerate();
        let found = places.filter(|(_, slot)| slot.thing.as_ref().is_some_and(&mut is_wanted));
        found.map(|(place, slot)| Token::new(self.kind, slot.generation, place as u32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(slots: &mut Slots<char>, thing: char) -> Token {
        slots.try_insert(|_| Ok::<_, ()>(thing)).unwrap()
    }

    #[test]
    fn a_place_is_given_again_and_its_former_token_finds_nothing() {
        let mut slots = Slots::new(Kind::Tcp);
        let (a, b) = (kept(&mut slots, 'a'), kept(&mut slots, 'b'));
        assert_eq!(slots.remove(a), Some('a'));
        let c = kept(&mut slots, 'c');
        assert_eq!((c.place(), c.kind()), (a.place(), Kind::Tcp));
        assert_ne!(a, c);
        assert_eq!(slots.get_mut(a), None);
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.get_mut(c), Some(&mut 'c'));
        assert_eq!(slots.find(|_| true), [c, b]);
        assert_eq!(slots.try_insert(|_| Err("no")), Err("no"));
        assert_eq!(Token::from_number(b.number()), b);
    }
}
