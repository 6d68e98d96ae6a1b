//! Components for tests, made from text: a core module in WAT, whose answers are values lowered by the canonical ABI.
//!
//! A [`Component`] answers the same to every ask, or does what a test writes in WAT instead. It is a real component with
//! the types of `wit/`; only its author is a test.

use std::path::Path;

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{
    Function, ManglingAndAbi, Resolve, SizeAlign, Type, TypeDefKind, WorldId, WorldItem,
};

/// A component to be.
pub(crate) struct Component {
    world: String,
    answers: Vec<(String, Value)>,
    bodies: Vec<(String, String)>,
    extra: String,
    wit_at: &'static str,
    wit: Option<(String, String)>,
    pages: usize,
}

/// Where lowered answers begin in memory.
const DATA: usize = 1024;

impl Component {
    /// Of a world of `wit/`, which describes itself and takes any settings.
    pub(crate) fn new(world: &str) -> Self {
        Self::of("../../wit", world)
    }

    /// Of a world of the package in a directory.
    pub(crate) fn of(wit_at: &'static str, world: &str) -> Self {
        let description = json!({
            "name": "test", "version": "1", "settings-schema": "{}", "metrics": ["seen"],
        });
        Self {
            world: world.to_owned(),
            answers: vec![
                ("describe".to_owned(), description),
                ("prepare".to_owned(), json!({ "ok": [] })),
            ],
            bodies: Vec::new(),
            extra: String::new(),
            wit_at,
            wit: None,
            pages: 0,
        }
    }

    /// Answers a function with a value.
    pub(crate) fn answer(mut self, function: &str, value: Value) -> Self {
        self.answers.retain(|(name, _)| name != function);
        self.answers.push((function.to_owned(), value));
        self
    }

    /// Runs instructions instead. They see `$p0`, `$p1`, …; an answer that was given as well is at `$ANSWER`.
    pub(crate) fn body(mut self, function: &str, instructions: &str) -> Self {
        self.bodies
            .push((function.to_owned(), instructions.to_owned()));
        self
    }

    /// Adds to the module: imports, functions, data.
    pub(crate) fn extra(mut self, text: &str) -> Self {
        self.extra.push_str(text);
        self
    }

    /// Begins with at least so much memory, in pages of 64 KiB.
    pub(crate) fn pages(mut self, pages: usize) -> Self {
        self.pages = pages;
        self
    }

    /// Replaces words of the WIT package, to be a component of another version.
    pub(crate) fn other_wit(mut self, from: &str, to: &str) -> Self {
        self.wit = Some((from.to_owned(), to.to_owned()));
        self
    }

    /// The component's bytes.
    pub(crate) fn build(&self) -> Vec<u8> {
        let (resolve, world) = self.resolve();
        let mut sizes = SizeAlign::default();
        sizes.fill(&resolve).expect("sizes are known");
        let mut memory = Memory {
            resolve: &resolve,
            sizes: &sizes,
            data: Vec::new(),
        };
        let mut functions = String::new();
        for (key, item) in &resolve.worlds[world].exports {
            let WorldItem::Interface { id, .. } = item else {
                continue;
            };
            let interface = resolve.name_world_key(key);
            for function in resolve.interfaces[*id].functions.values() {
                self.function(&mut functions, &mut memory, &interface, function);
            }
        }
        let (data, heap) = (escaped(&memory.data), DATA + memory.data.len());
        let pages = self.pages.max(heap.div_ceil(65536) + 1);
        let (extra, imports) = split_imports(&self.extra);
        let text = format!(
            r#"(module {imports}
            (memory (export "memory") {pages})
            (global $heap (mut i32) (i32.const {heap}))
            (data (i32.const {DATA}) "{data}")
            (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
              (local.set $at (i32.and
                (i32.add (global.get $heap) (i32.sub (local.get 2) (i32.const 1)))
                (i32.sub (i32.const 0) (local.get 2))))
              (global.set $heap (i32.add (local.get $at) (local.get 3)))
              (block $fits
                (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
                (br_if $fits (i32.ne (i32.const -1) (memory.grow (i32.add (i32.const 1)
                  (i32.div_u (local.get 3) (i32.const 65536))))))
                unreachable)
              (local.get $at))
            {functions}
            {extra})"#
        );
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
            .expect("metadata fits");
        ComponentEncoder::default()
            .validate(true)
            .module(&module)
            .expect("the module fits the world")
            .encode()
            .expect("encodes")
    }

    fn resolve(&self) -> (Resolve, WorldId) {
        let mut resolve = Resolve::default();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.wit_at);
        let package = match &self.wit {
            None => resolve.push_dir(&wit).expect("wit/ parses").0,
            Some((from, to)) => {
                let copy = tempfile::tempdir().expect("a directory");
                for file in std::fs::read_dir(&wit).expect("wit/ is there") {
                    let path = file.expect("an entry").path();
                    let text = std::fs::read_to_string(&path)
                        .expect("reads")
                        .replace(from, to);
                    let name = path.file_name().expect("a name");
                    std::fs::write(copy.path().join(name), text).expect("writes");
                }
                resolve.push_dir(copy.path()).expect("parses").0
            }
        };
        let world = resolve
            .select_world(&[package], Some(&self.world))
            .expect("a world");
        (resolve, world)
    }

    fn function(
        &self,
        out: &mut String,
        memory: &mut Memory<'_>,
        interface: &str,
        function: &Function,
    ) {
        let signature = memory
            .resolve
            .wasm_signature(AbiVariant::GuestExport, function);
        let name = memory.resolve.wasm_export_name(
            ManglingAndAbi::Legacy(wit_parser::LiftLowerAbi::Sync),
            wit_parser::WasmExport::Func {
                interface: None,
                func: function,
                kind: wit_parser::WasmExportKind::Normal,
            },
        );
        *out += &format!(r#"(func (export "{interface}#{name}")"#);
        for (index, kind) in signature.params.iter().enumerate() {
            *out += &format!(" (param $p{index} {})", wasm(*kind));
        }
        for kind in &signature.results {
            *out += &format!(" (result {})", wasm(*kind));
        }
        let answer = self.answers.iter().find(|(name, _)| *name == function.name);
        let at = answer.map(|(_, value)| {
            let result = function.result.as_ref().expect("it answers");
            DATA + memory.put(result, value)
        });
        let body = self.bodies.iter().find(|(name, _)| *name == function.name);
        let instructions = match (body, at) {
            (Some((_, text)), Some(at)) => text.replace("$ANSWER", &format!("(i32.const {at})")),
            (Some((_, text)), None) => text.clone(),
            (None, Some(at)) => format!("(i32.const {at})"),
            (None, None) => "unreachable".to_owned(),
        };
        *out += &format!(" {instructions})\n");
    }
}

fn wasm(kind: WasmType) -> &'static str {
    match kind {
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
    }
}

/// Imports come first in a module.
fn split_imports(extra: &str) -> (String, String) {
    let (imports, rest): (Vec<&str>, Vec<&str>) = extra
        .lines()
        .partition(|line| line.trim_start().starts_with("(import"));
    (rest.join("\n"), imports.join("\n"))
}

fn escaped(data: &[u8]) -> String {
    data.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// Lowers values into memory (Component Model, canonical ABI, "Storing").
struct Memory<'a> {
    resolve: &'a Resolve,
    sizes: &'a SizeAlign,
    data: Vec<u8>,
}

impl Memory<'_> {
    fn room(&mut self, size: usize, align: usize) -> usize {
        let at = self.data.len().next_multiple_of(align.max(1));
        self.data.resize(at + size, 0);
        at
    }

    /// Puts a value somewhere; where.
    fn put(&mut self, kind: &Type, value: &Value) -> usize {
        let (size, align) = (
            self.sizes.size(kind).size_wasm32(),
            self.sizes.align(kind).align_wasm32(),
        );
        let at = self.room(size, align);
        self.store(kind, value, at);
        at
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn list(&mut self, at: usize, first: usize, count: usize) {
        self.bytes(
            at,
            &u32::try_from(DATA + first).expect("small").to_le_bytes(),
        );
        self.bytes(at + 4, &u32::try_from(count).expect("small").to_le_bytes());
    }

    fn store(&mut self, kind: &Type, value: &Value, at: usize) {
        let number = || {
            value
                .as_i64()
                .map_or_else(|| value.as_u64().expect("a number"), |n| n as u64)
        };
        match kind {
            Type::Bool => self.bytes(at, &[u8::from(value.as_bool().expect("a bool"))]),
            Type::U8 | Type::S8 => self.bytes(at, &number().to_le_bytes()[..1]),
            Type::U16 | Type::S16 => self.bytes(at, &number().to_le_bytes()[..2]),
            Type::U32 | Type::S32 => self.bytes(at, &number().to_le_bytes()[..4]),
            Type::U64 | Type::S64 => self.bytes(at, &number().to_le_bytes()),
            Type::String => {
                let text = value.as_str().expect("a string").as_bytes();
                let first = self.room(text.len(), 1);
                self.bytes(first, text);
                self.list(at, first, text.len());
            }
            Type::Id(id) => {
                let kind = self.resolve.types[*id].kind.clone();
                self.store_defined(&kind, value, at);
            }
            other => panic!("{other:?} is not in wit/"),
        }
    }

    fn store_defined(&mut self, kind: &TypeDefKind, value: &Value, at: usize) {
        match kind {
            TypeDefKind::Type(inner) => self.store(inner, value, at),
            TypeDefKind::Record(record) => {
                let types: Vec<Type> = record.fields.iter().map(|field| field.ty).collect();
                let values: Vec<&Value> = record
                    .fields
                    .iter()
                    .map(|field| &value[&field.name])
                    .collect();
                self.store_fields(&types, &values, at);
            }
            TypeDefKind::Tuple(tuple) => {
                let values: Vec<&Value> = value.as_array().expect("a tuple").iter().collect();
                self.store_fields(&tuple.types, &values, at);
            }
            TypeDefKind::List(inner) => {
                let values = value.as_array().expect("a list");
                let size = self.sizes.size(inner).size_wasm32();
                let first = self.room(size * values.len(), self.sizes.align(inner).align_wasm32());
                for (index, value) in values.iter().enumerate() {
                    self.store(inner, value, first + index * size);
                }
                self.list(at, first, values.len());
            }
            TypeDefKind::Option(inner) => {
                if !value.is_null() {
                    self.store_case(&[None, Some(*inner)], 1, value, at);
                }
            }
            TypeDefKind::Result(result) => {
                let cases = [result.ok, result.err];
                let (index, payload) = match value.get("ok") {
                    Some(payload) => (0, payload),
                    None => (1, &value["err"]),
                };
                self.store_case(&cases, index, payload, at);
            }
            TypeDefKind::Variant(variant) => {
                let cases: Vec<Option<Type>> = variant.cases.iter().map(|case| case.ty).collect();
                let (name, payload) = match value {
                    Value::String(name) => (name, &Value::Null),
                    other => other
                        .as_object()
                        .and_then(|o| o.iter().next())
                        .expect("a case"),
                };
                let index = variant.cases.iter().position(|case| case.name == *name);
                self.store_case(&cases, index.expect("a known case"), payload, at);
            }
            other => panic!("{other:?} is not in wit/"),
        }
    }

    fn store_fields(&mut self, types: &[Type], values: &[&Value], at: usize) {
        let offsets: Vec<usize> = self
            .sizes
            .field_offsets(types.iter())
            .into_iter()
            .map(|(offset, _)| offset.size_wasm32())
            .collect();
        for ((kind, value), offset) in types.iter().zip(values).zip(offsets) {
            self.store(kind, value, at + offset);
        }
    }

    fn store_case(&mut self, cases: &[Option<Type>], index: usize, payload: &Value, at: usize) {
        self.bytes(at, &[u8::try_from(index).expect("few cases")]);
        if let Some(kind) = &cases[index] {
            let offset = self
                .sizes
                .payload_offset(wit_parser::Int::U8, cases.iter().map(Option::as_ref));
            self.store(kind, payload, at + offset.size_wasm32());
        }
    }
}
