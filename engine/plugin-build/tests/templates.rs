//! What `scaffold` writes is compiled and its tests are run here, as an author would.

/// `admission`
pub mod admission {
    include!("../templates/admission.rs");
}
/// `placement`
pub mod placement {
    include!("../templates/placement.rs");
}
/// `mutation`
pub mod mutation {
    include!("../templates/mutation.rs");
}
/// `billing`
pub mod billing {
    include!("../templates/billing.rs");
}
