-- Who is at this store, and the form it is written in.
--
-- KEYS     the form (string), the roll: what each process says of itself, `newest:at:name` (hash)
-- ARGV[1]  msgpack: {'call', process, what it says, form of an empty store, instant before which all are dead}
--          or {'raise', the roll as it was seen, form}
-- ARGV[#]  the nonce
-- Reply    the nonce, and msgpack: the form; false where the roll is no longer as it was seen
--
-- Whoever calls is on the roll before they hear the form, and the form is raised only over a roll that was
-- looked at: so either the one who raises it sees who could not read it, or they hear that they cannot.

local ask, nonce = cmsgpack.unpack(ARGV[1]), ARGV[#ARGV]
local schema, roll = KEYS[1], KEYS[2]

if ask[1] == 'call' then
  redis.call('HSET', roll, ask[2], ask[3])
  local all = redis.call('HGETALL', roll)
  for i = 1, #all, 2 do
    local at = tonumber(string.match(all[i + 1], '^%d+:(%d+):'))
    if not at or at < ask[5] then redis.call('HDEL', roll, all[i]) end
  end
  redis.call('SET', schema, ask[4], 'NX')
  return { nonce, cmsgpack.pack(tonumber(redis.call('GET', schema))) }
end

local all, seen = redis.call('HGETALL', roll), ask[2]
local same = #all == #seen
for i = 1, #all, 2 do
  local was
  for j = 1, #seen, 2 do
    if seen[j] == all[i] then was = seen[j + 1] end
  end
  same = same and was == all[i + 1]
end
if not same then return { nonce, cmsgpack.pack(false) } end
redis.call('SET', schema, ask[3])
return { nonce, cmsgpack.pack(ask[3]) }
