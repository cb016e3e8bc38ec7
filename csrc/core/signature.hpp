// SPDX-License-Identifier: MIT
// The one shape language: "(d)~,(d),tril(d)->(d)" read at compile time. See CONTRIBUTING.md for the grammar.
#pragma once
#include "config.hpp"

namespace reparam {

enum class Kind : uint8_t {
  scalar,     // ()
  vector,     // (n)
  rows,       // (m,n), read row by row
  tril,       // tril(d): lower factor, dense [d, d]
  symmetric,  // sym(d): symmetric, read below the diagonal, dense [d, d]
  packed,     // vec(d): lower triangle as a vector of d (d + 1) / 2
};
enum class Item : uint8_t { real, i4, u4, u8 };

inline constexpr int64_t item_size(Item item, bool is_double) {
  return item == Item::real ? (is_double ? 8 : 4) : item == Item::u8 ? 8 : 4;
}

struct OperandSpec {
  Kind kind = Kind::scalar;
  Item item = Item::real;
  int8_t symbol[2] = {-1, -1};
  bool in_place = false;
  bool drawable = false;  // noise, which a Draw may stand for
};

REPARAM_HD constexpr bool is_matrix(OperandSpec spec) {
  return spec.kind == Kind::tril || spec.kind == Kind::symmetric;
}

inline constexpr int kMaxOperands = 16;
inline constexpr int kMaxSymbols = 3;

struct Signature {
  int inputs = 0, outputs = 0, symbols = 0;
  char symbol_name[kMaxSymbols] = {};
  OperandSpec operand[kMaxOperands] = {};
};

// One pass as a flat list of operands. Forward: inputs, outputs. Reverse: inputs (or outputs, where the vjp is taken
// from them), output cotangents, outputs (again none where they are given), input cotangents.
struct PassSpec {
  int count = 0, symbols = 0;
  int primals = 0, cotangents = 0, values = 0;  // of a reverse pass, before the input cotangents
  OperandSpec operand[kMaxOperands] = {};
  bool reads[kMaxOperands] = {}, writes[kMaxOperands] = {};
};

namespace signature_parser {

consteval bool starts_with(const char* text, const char* prefix) {
  for (; *prefix; ++text, ++prefix)
    if (*text != *prefix) return false;
  return true;
}

consteval int symbol_index(Signature& s, char name) {
  for (int i = 0; i < s.symbols; ++i)
    if (s.symbol_name[i] == name) return i;
  s.symbol_name[s.symbols] = name;  // out of range here is a compile error
  return s.symbols++;
}

// Reads one operand and returns what follows it.
consteval const char* read_operand(Signature& s, const char* p, OperandSpec& out) {
  bool matrix_word = true;
  if (starts_with(p, "tril")) out.kind = Kind::tril, p += 4;
  else if (starts_with(p, "sym")) out.kind = Kind::symmetric, p += 3;
  else if (starts_with(p, "vec")) out.kind = Kind::packed, p += 3;
  else matrix_word = false;
  if (*p != '(') throw "operand must open with a parenthesis";
  int count = 0;
  for (++p; *p != ')'; ++p)
    if (*p != ',') out.symbol[count++] = static_cast<int8_t>(symbol_index(s, *p));
  ++p;
  if (!matrix_word) out.kind = count == 0 ? Kind::scalar : count == 1 ? Kind::vector : Kind::rows;
  if (starts_with(p, ":i4")) out.item = Item::i4, p += 3;
  else if (starts_with(p, ":u4")) out.item = Item::u4, p += 3;
  else if (starts_with(p, ":u8")) out.item = Item::u8, p += 3;
  if (*p == '!') out.in_place = true, ++p;
  if (*p == '~') out.drawable = true, ++p;
  return p;
}

}  // namespace signature_parser

consteval Signature parse_signature(const char* p) {
  Signature s;
  bool after_arrow = false;
  while (*p) {
    if (signature_parser::starts_with(p, "->")) {
      after_arrow = true;
      p += 2;
    } else if (*p == ',') {
      ++p;
    } else {
      p = signature_parser::read_operand(s, p, s.operand[s.inputs + s.outputs]);
      ++(after_arrow ? s.outputs : s.inputs);
    }
  }
  return s;
}

consteval PassSpec make_pass(const char* text, bool vjp, bool vjp_from_outputs) {
  const Signature s = parse_signature(text);
  PassSpec pass;
  pass.symbols = s.symbols;
  auto add = [&](OperandSpec spec, bool reads, bool writes) {
    pass.operand[pass.count] = spec;
    pass.reads[pass.count] = reads;
    pass.writes[pass.count] = writes;
    ++pass.count;
  };
  if (!vjp) {
    for (int i = 0; i < s.inputs + s.outputs; ++i)
      add(s.operand[i], i < s.inputs, i >= s.inputs || s.operand[i].in_place);
    return pass;
  }
  const int first = vjp_from_outputs ? s.inputs : 0, last = vjp_from_outputs ? s.inputs + s.outputs : s.inputs;
  for (int i = first; i < last; ++i)
    if (!vjp_from_outputs || s.operand[i].item == Item::real) add(s.operand[i], true, false);
  pass.primals = pass.count;
  for (int i = s.inputs; i < s.inputs + s.outputs; ++i)
    if (s.operand[i].item == Item::real) add(s.operand[i], true, false);
  pass.cotangents = pass.count - pass.primals;
  for (int i = s.inputs; i < s.inputs + s.outputs && !vjp_from_outputs; ++i)
    if (s.operand[i].item == Item::real) add(s.operand[i], false, true);
  pass.values = pass.count - pass.primals - pass.cotangents;
  for (int i = 0; i < s.inputs; ++i)
    if (s.operand[i].item == Item::real) {
      add(s.operand[i], false, true);
      pass.operand[pass.count - 1].drawable = false;
    }
  return pass;
}

}  // namespace reparam
