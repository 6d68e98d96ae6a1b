//! What wasmtime generates from `wit/`. Nothing else is here.
//!
//! Invariant: `full-policy` names every hook. Which of them a component has is found by looking for its exports.
wasmtime::component::bindgen!({
    path: "../../wit",
    world: "full-policy",
    imports: { default: trappable },
    additional_derives: [PartialEq],
});
