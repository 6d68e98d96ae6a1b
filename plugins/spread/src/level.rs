//! Spreading evenly: how many daughters each place gets at most.

/// The lowest level `l` at which places of such room hold all daughters: Σ min(room, l) ≥ wanted. All of `wanted`, where
/// not even all room would: then how much fits is the engine's to find.
pub(crate) fn level(rooms: &[u32], wanted: u32) -> u32 {
    let held = |level: u32| -> u64 { rooms.iter().map(|room| u64::from(*room.min(&level))).sum() };
    if held(wanted) < wanted.into() {
        return wanted;
    }
    let (mut low, mut high) = (0, wanted);
    // held(high) ≥ wanted all the while, and held(low) < wanted unless nothing is wanted.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if held(middle) >= wanted.into() {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}
