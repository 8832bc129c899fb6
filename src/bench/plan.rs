//! Who is measured when.
//!
//! Round by round; in each, group by group; in each group one implementation after the other, so
//! that those that are compared ran seconds apart. Whoever was first in one round is not in the
//! next, and every other round goes backwards: nobody always follows the same one.

use super::metric::Group;

/// One measurement: of one group, on one freshly made tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub round: u32,
    pub group: Group,
    /// Position in the list of those who take part.
    pub implementation: usize,
}

/// All measurements, in order.
pub fn units(rounds: u32, groups: &[Group], implementations: usize) -> Vec<Unit> {
    let mut units = Vec::new();
    for round in 0..rounds {
        for &group in groups {
            let turns = order(round, implementations).into_iter();
            units.extend(turns.map(|implementation| Unit { round, group, implementation }));
        }
    }
    units
}

fn order(round: u32, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if count > 0 {
        order.rotate_left(usize::try_from(round).unwrap_or(0) / 2 % count);
    }
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_measured_once_a_round_and_group() {
        let units = units(3, &[Group::Tcp, Group::Udp], 4);
        assert_eq!(units.len(), 3 * 2 * 4);
        for round in 0..3 {
            for group in [Group::Tcp, Group::Udp] {
                let turn = units.iter().filter(|u| u.round == round && u.group == group);
                let mut who: Vec<_> = turn.map(|unit| unit.implementation).collect();
                who.sort_unstable();
                assert_eq!(who, [0, 1, 2, 3]);
            }
        }
    }

    #[test]
    fn over_the_rounds_everybody_is_first_and_nobody_always_follows_the_same_one() {
        let orders: Vec<_> = (0..8).map(|round| order(round, 4)).collect();
        for who in 0..4 {
            assert!(orders.iter().any(|order| order[0] == who), "{who} is never first");
            let before = |order: &Vec<usize>| {
                order
                    .iter()
                    .position(|&one| one == who)
                    .and_then(|at| at.checked_sub(1))
                    .map(|at| order[at])
            };
            let mut before: Vec<_> = orders.iter().filter_map(before).collect();
            before.sort_unstable();
            before.dedup();
            assert!(before.len() > 1, "{who} always follows {before:?}");
        }
        assert_eq!(order(3, 0), Vec::<usize>::new());
        assert_eq!(order(1, 1), [0]);
    }
}
