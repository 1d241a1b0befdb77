-- KEYS[1]: the record. ARGV: the channel, the record's name in it, fence, state, value, next, and for how long it lives.
local channel, name, fence, state, value, next_name, life = unpack(ARGV, 2)
local record = read(KEYS[1])
if record.s == 'e' then
  return {'void', record.v}
end
local is_claimed = record.s == 'c'
if is_claimed and record.t ~= '' and (state == 'd' or record.f == fence) then
  write(KEYS[1], record.l, {s = 'e', v = record.t})
  publish(channel, name)
  return {'void', record.t}
end
if state ~= 'd' and not (is_claimed and record.f == fence) then
  return look(KEYS[1])
end
if state == 'released' then
  -- It does not count. Without its fence, a repetition does not release it again.
  redis.call('HSET', KEYS[1], 'f', '', 'u', now, 'n', record.n - 1)
else
  write(KEYS[1], life, {s = state, v = value, x = next_name})
end
publish(channel, name)
return {'recorded'}
