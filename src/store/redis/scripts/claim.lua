-- KEYS[1]: the record. ARGV: fence, proof, lease, and for how long the record outlives it.
local fence, proof, lease, memory = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local record = read(KEYS[1])
local number = 1
if record.s ~= '' then
  local is_open = record.s == 'c' and record.t == ''
  if is_open and record.f == fence then
    return {'granted', record.n}
  end
  if not is_open or record.n > 1 or now < record.u then
    return look(KEYS[1])
  end
  number = record.n + 1
end
write(KEYS[1], lease + memory, {s = 'c', v = proof, f = fence, n = number, u = now + lease})
return {'granted', number}
