-- KEYS[1]: the record. ARGV: the channel, the record's name in it, the tombstone, and for how long it lives.
local channel, name, tombstone, life = unpack(ARGV, 2)
local record = read(KEYS[1])
if record.s == 'c' and now < record.u then
  redis.call('HSET', KEYS[1], 't', tombstone, 'l', life)
  if redis.call('PTTL', KEYS[1]) < tonumber(life) then
    redis.call('PEXPIRE', KEYS[1], life)
  end
  publish(channel, name)
  return {'claimed', record.v}
end
-- A repetition, after a failure that has hidden the reply, returns the same again.
local answer = record.s == 'd' and record.v or record.s == 'e' and record.a or ''
write(KEYS[1], life, {s = 'e', v = tombstone, a = answer})
publish(channel, name)
if answer ~= '' then
  return {'rotated', answer}
end
return {record.s == 'c' and 'stalled' or 'nothing'}
