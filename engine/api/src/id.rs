//! How ids look in the document. The ids themselves are `brood_units`'.

use utoipa::ToSchema;

/// An opaque id: 32 lower-case hexadecimal digits.
#[derive(ToSchema)]
#[schema(
    pattern = "^[0-9a-f]{32}$",
    example = "6f2c1f0e9b7d4a3c8e5f60718293a4b5"
)]
pub struct IdText(#[expect(dead_code, reason = "only its schema is used")] String);
