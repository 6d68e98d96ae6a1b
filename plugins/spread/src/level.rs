//! Spreading evenly: how many daughters each place gets at most.

/// The lowest level `l` at which places of such room hold all daughters: Σ min(room, l) ≥ wanted. All of `wanted`, where
/// not even all room would: then how much fits is the engine's to find.
pub(crate) fn level(rooms: &[u32], wanted: u32) -> u32 {
    let (mut level, mut missing) = (0_u32, wanted);
    let mut open = rooms.len();
    while missing > 0 {
        // To raise the level by one adds at most one daughter for each open place, so this never passes the lowest.
        let open_places = u32::try_from(open).unwrap_or(u32::MAX);
        if open_places == 0 {
            return wanted;
        }
        level = level.saturating_add(missing.div_ceil(open_places));
        let held: u64 = rooms.iter().map(|room| u64::from(*room.min(&level))).sum();
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        missing = wanted.saturating_sub(held);
        if missing == 0 {
            break;
        }
        open = rooms.iter().filter(|room| **room > level).count();
    }
    level
}
